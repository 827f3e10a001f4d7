"""Hillstrom's e-mail experiment (a real randomised trial, 64,000 customers, three arms, 2008) -> landing tables of the contracts.

One decision a customer at MOMENT, each arm with probability 1/3. What the file says only roughly is laid on the time line so:
`history` dollars become one basket `recency` * 30 days before the moment, split evenly between the departments the customer bought
from; `visit` becomes a visit one day after the moment and `spend` a basket of department OTHER (the file does not say what was
bought) two days after it. The trial's own outcome window is two weeks; here both lie inside the contract's seven days.
Assumed: an e-mail costs one cent (`contact_cents`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pyarrow as pa
import pyarrow.csv as pc_csv
from numpy.typing import NDArray

from components.sources.landing_tables import Landed, arrow_table
from promolift.contracts.promos import Promo, SourceCard
from promolift.contracts.tables import table
from promolift.errors import InputError, UnavailableError

URL = "https://hillstorm1.s3.us-east-2.amazonaws.com/hillstorm_no_indices.csv.gz"
MD5 = "a68a81291f53a14f4e29002629803ba3"
MOMENT = int(np.datetime64("2008-03-20", "us").astype(np.int64))
AS_OF = "2008-04-30T00:00:00Z"
DAY = 86_400_000_000
SEGMENTS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
PROMOS = (
    Promo("mens_email", "apparel_men", 0.0, 0, contact_cents=1),
    Promo("womens_email", "apparel_women", 0.0, 0, contact_cents=1),
)
DEPARTMENTS = ("MENS", "WOMENS", "OTHER")
_NUMBERS: dict[str, tuple[float, float]] = {
    "recency": (1, 12), "history": (0, np.inf), "mens": (0, 1), "womens": (0, 1), "newbie": (0, 1), "visit": (0, 1),
    "conversion": (0, 1), "spend": (0, np.inf),
}  # fmt: skip
_TEXTS = ("zip_code", "channel", "segment")
Floats = NDArray[np.float64]


def _fetch() -> Path:
    try:
        return Path(pooch.retrieve(URL, known_hash=f"md5:{MD5}", path=pooch.os_cache("promolift"), progressbar=False))
    except ValueError as error:
        raise InputError(f"{URL} does not have the published checksum md5 {MD5}; give a trusted copy as path.") from error
    except OSError as error:
        raise UnavailableError(f"Cannot fetch {URL} ({type(error).__name__}); give the file's path instead.") from error


def _rows(file: Path) -> pa.Table:
    """The file as text columns."""
    if not file.is_file():
        raise InputError(f"Hillstrom's file {file} is missing; give its path, or none to fetch it.")
    columns = (*_NUMBERS, *_TEXTS)
    try:
        found = pc_csv.read_csv(file, convert_options=pc_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} is not a readable CSV file ({str(error)[:120]}).") from error
    for column in columns:
        if column not in found.column_names:
            raise InputError(f"{file} has no column '{column}'; it has {', '.join(found.column_names)}.")
    if not found.num_rows:
        raise InputError(f"{file} has no rows.")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _numbers(rows: pa.Table, column: str) -> Floats:
    """A column as numbers within its limits. Raises InputError naming the first row (1 is the first after the header) and value."""
    low, high = _NUMBERS[column]
    texts = rows[column].to_pylist()
    values = np.array([_number(t) for t in texts])
    bad = np.flatnonzero(~((values >= low) & (values <= high)))
    if len(bad):
        raise InputError(
            f"Column '{column}' has the value {texts[bad[0]]!r} in row {bad[0] + 1}; it must be a number from {low} to {high}."
        )
    return values


def _arms(rows: pa.Table) -> NDArray[np.int64]:
    segments = rows["segment"].to_pylist()
    for row, segment in enumerate(segments):
        if segment not in SEGMENTS:
            raise InputError(f"Column 'segment' has the value {segment!r} in row {row + 1}; it must be one of {', '.join(SEGMENTS)}.")
    return np.array([SEGMENTS.index(s) for s in segments])


def _landing(name: str, columns: dict[str, Any]) -> pa.Table:
    return arrow_table(table("landing", name), columns)


def _history(numbers: dict[str, Floats]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(customer, department, cents) of the lines bought before the moment; the halves of an odd sum differ by a cent."""
    cents = np.floor(numbers["history"] * 100 + 0.5).astype(np.int64)
    men, women = numbers["mens"] == 1, numbers["womens"] == 1
    mens = np.where(men & women, cents // 2, np.where(men, cents, 0))
    shares = np.column_stack([mens, np.where(women, cents - mens, 0), np.where(men | women, 0, cents)])
    customer, department = np.nonzero(np.column_stack([men, women, ~(men | women)]))
    return customer, department, shares[customer, department]


def _purchases(customers: pa.Array, numbers: dict[str, Floats]) -> pa.Table:
    customer, department, cents = _history(numbers)
    buyers = np.flatnonzero(numbers["conversion"] == 1)
    spend = np.floor(numbers["spend"][buyers] * 100 + 0.5).astype(np.int64)
    who = np.concatenate([customer, buyers])
    what = np.concatenate([department, np.full(len(buyers), DEPARTMENTS.index("OTHER"))])
    time = np.concatenate([MOMENT - numbers["recency"][customer].astype(np.int64) * 30 * DAY, np.full(len(buyers), MOMENT + 2 * DAY)])
    basket = [f"{i}-{'history' if n < len(customer) else 'outcome'}" for n, i in enumerate(who)]
    products = [DEPARTMENTS[d] for d in what]
    return _landing("purchases", {
        "event_id": [f"{b}-{p}" for b, p in zip(basket, products, strict=True)], "shopper_id": customers.take(pa.array(who)),
        "store_id": pa.array(["unknown"] * len(who)), "basket_id": basket, "product_id": products,
        "quantity": np.ones(len(who), np.int64), "sales_cents": np.concatenate([cents, spend]),
        "discount_cents": np.zeros(len(who), np.int64), "event_time": time, "arrived_at": time,
    })  # fmt: skip


def _decisions(customers: pa.Array, arms: NDArray[np.int64], visitors: NDArray[np.int64]) -> dict[str, pa.Table]:
    size = len(customers)
    assignments = _landing("assignments", {
        "exposure_id": customers, "shopper_id": customers, "moment": np.full(size, MOMENT), "bucket": ["uniform"] * size,
        "promo_id": pa.array(("no_promo", *(p.promo_id for p in PROMOS))).take(pa.array(arms)),
        "propensities": pa.array([[1 / 3] * 3] * size), "arrived_at": np.full(size, MOMENT),
    })  # fmt: skip
    who, time = customers.take(pa.array(visitors)), np.full(len(visitors), MOMENT + DAY)
    visits = _landing("visits", {"event_id": who, "shopper_id": who, "event_time": time, "arrived_at": time})
    return {"assignments": assignments, "visits": visits}


def _shoppers(customers: pa.Array, rows: pa.Table, newbie: Floats) -> pa.Table:
    none = pa.nulls(len(customers), pa.string())
    columns: dict[str, Any] = {"shopper_id": customers, "age_band": none, "income_band": none, "household_size": none}
    return _landing("shoppers", {
        **columns, "area": rows["zip_code"], "channel": rows["channel"], "is_new": np.where(newbie == 1, "yes", "no"),
    })  # fmt: skip


def _card() -> SourceCard:
    return SourceCard(
        name="hillstrom",
        real="Customers, e-mails, visits and spend of Hillstrom's randomised trial (64,000 customers of a clothing shop).",
        simulated="Only places on the time line: past spend recency x 30 days back, visits and spend one and two days after the "
        "e-mail (the trial's window was two weeks). An e-mail is assumed to cost one cent.",
        objective="visited", binary_outcome="visited", budget_cents=0.5, as_of=AS_OF, promos=PROMOS, has_truth=False,
    )  # fmt: skip


def read(path: str) -> tuple[pa.Table, dict[str, Floats], NDArray[np.int64]]:
    """All columns as text, the columns of numbers, and each row's index in SEGMENTS, of `path` or fetched by checksum when ""."""
    rows = _rows(Path(path) if path else _fetch())
    return rows, {column: _numbers(rows, column) for column in _NUMBERS}, _arms(rows)


def land(path: str, seed: int) -> Landed:
    """Hillstrom from the CSV(.gz) file `path`, or fetched by checksum when "". `seed` is not used: nothing is drawn."""
    rows, numbers, arms = read(path)
    customers = pa.array([f"c{i:05d}" for i in range(1, rows.num_rows + 1)])
    tables = _decisions(customers, arms, np.flatnonzero(numbers["visit"] == 1))
    tables["purchases"] = _purchases(customers, numbers)
    tables["shoppers"] = _shoppers(customers, rows, numbers["newbie"])
    tables["products"] = _landing("products", {"product_id": DEPARTMENTS, "department": DEPARTMENTS})
    return Landed(_card(), tables)
