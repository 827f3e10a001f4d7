"""Request -> Shopper -> Candidates -> Scores -> Decision, and the one envelope that every step of the graph returns whole.

A step of a KServe graph sees either its node's input or the previous response, never both, so everything travels in the envelope.
On the wire it is V1 JSON: the fields below by name. `schema()` is the JSON Schema of the request and of the envelope. What comes from
the wire is validated (`read_*`); what a box makes is not once more: a decision makes a dozen of these.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from promolift.contracts.promos import CATEGORY_NAMES

T = TypeVar("T")
NODES: tuple[str, ...] = ("transformer", "eligibility", "predictor", "constraints")
"""The boxes of the graph in order; graph.yaml and the server must name exactly these."""

Channel = Literal["app", "web", "pos"]
Bucket = Literal["holdout", "randomised", "explore", "policy"]
Reason = Literal[
    "best_profit", "explored", "randomised", "rules_only", "holdout", "no_eligible_promo", "not_profitable", "would_harm",
    "budget_exhausted", "cap_reached", "model_error", "budget_unavailable", "deadline", "graph_unavailable",
]  # fmt: skip
Evidence = Literal["model", "segment_prior", "none"]
Degraded = Literal[
    "stale_features", "expired_features", "no_features", "features_unavailable", "out_of_support", "model_error", "segment_prior",
    "rules_only", "ledger_unavailable", "deadline", "graph_unavailable",
]  # fmt: skip
"""What was not as it should be, in the order of the boxes that noticed it."""
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
_STRICT = ConfigDict(extra="forbid")
_UTC = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|\+00:00)$"


def _on_the_calendar(moment: str) -> str:
    """The moment itself. Raises ValueError for a day or an hour that does not exist, of which the pattern knows nothing."""
    datetime.fromisoformat(moment)
    return moment


def _of_the_list(category: str) -> str:
    """The category itself. Raises ValueError for one that the contracts do not have."""
    if category not in CATEGORY_NAMES:
        raise ValueError(f"it must be one of {', '.join(CATEGORY_NAMES)}")
    return category


Text = Annotated[str, Field(max_length=255)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Moment = Annotated[str, Field(pattern=_UTC), AfterValidator(_on_the_calendar)]
Category = Annotated[str, AfterValidator(_of_the_list), WithJsonSchema({"type": "string", "enum": list(CATEGORY_NAMES)})]


@dataclass(frozen=True)
class BasketLine:
    """One line of the basket at the moment of asking. Numbers are JSON numbers: "5" is none.

    `product_id`: as the shop's events name it; no promo hangs on it, the drift detector compares prices of the same product by it.
    """

    __pydantic_config__ = _STRICT

    category: Category
    amount_cents: Annotated[int, Field(ge=0, le=2**53, strict=True)]
    quantity: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1
    product_id: Text = ""


@dataclass(frozen=True)
class Request:
    """What the platform asks. `request_id` is the idempotency key; `moment` is ISO 8601 UTC.

    `deadline_ms`: how long the caller waits from now on. `context`: what the caller knows of the shopper, by name of an attribute; it
    stands in for features that cannot be had.
    """

    __pydantic_config__ = _STRICT

    request_id: Name
    shopper_id: Name
    moment: Moment
    store_id: Text = ""
    channel: Channel = "pos"
    basket: Annotated[tuple[BasketLine, ...], Field(max_length=200)] = ()
    deadline_ms: Annotated[int, Field(ge=1, le=60_000, strict=True)] | None = None
    context: Annotated[dict[Annotated[str, Field(max_length=64)], Text], Field(max_length=32)] = field(default_factory=dict)


@dataclass(frozen=True)
class Shopper:
    """Online features by name; `found` is false for a shopper never seen (defaults); `age_s`: age of the features in seconds."""

    __pydantic_config__ = _STRICT

    features: dict[str, float | str]
    found: bool
    age_s: float | None = None


@dataclass(frozen=True)
class Candidates:
    """Promos that the rules allow, in catalogue order, and for every other one a sentence saying why not."""

    __pydantic_config__ = _STRICT

    promo_ids: tuple[str, ...]
    refused: dict[str, str]
    rules_version: str


@dataclass(frozen=True)
class Scores:
    """Per candidate, aligned with `Candidates.promo_ids`: predicted incremental value, its lower bound, and promo cost (cents).

    `error` is a sentence when the model could not score; without a `segment_prior` in its place the three tuples are then empty.
    """

    __pydantic_config__ = _STRICT

    model_version: str
    value: tuple[float, ...] = ()
    lower: tuple[float, ...] = ()
    cost: tuple[float, ...] = ()
    error: str | None = None
    evidence: Evidence = "model"


@dataclass(frozen=True)
class Decision:
    """The answer. `propensities`: probability of each arm (feasible promos and no_promo) over the final feasible set; they sum to 1.

    `refused`: why the ledger could not give an arm (budget, cap_per_day, cap_per_week, shopper_cap_per_day, shopper_cap_per_week,
    cool_down, excluded). `prices`: lambda of each budget that was asked. `key_id`: which key signs the token.
    """

    __pydantic_config__ = _STRICT

    decision_id: str
    promo_id: str
    reason: Reason
    bucket: Bucket
    propensities: dict[str, float]
    expected_value: float = 0.0
    reserved_cents: int = 0
    reservation_id: str | None = None
    budget: str | None = None
    expires_at: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    key_id: str | None = None


@dataclass(frozen=True)
class Envelope:
    """Everything known so far about one decision. `versions` and `timings_ms` are filled by each step under its own name.

    `token`: what a till checks before it pays; it follows from decision and key, and is not logged. `repeated`: the request was decided
    before, and this is that decision. `rollout`: the shopper's bucket of 0..9999, by which a graph's Switch sends a share of all shoppers
    to another model, the same shoppers every time.
    """

    __pydantic_config__ = _STRICT

    request: Request
    shopper: Shopper | None = None
    candidates: Candidates | None = None
    scores: Scores | None = None
    decision: Decision | None = None
    versions: dict[str, str] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    received_at: Moment | None = None
    degraded: tuple[Degraded, ...] = ()
    token: str | None = None
    repeated: bool = False
    rollout: int | None = None


def read_request(document: Any) -> Request:
    """A request from parsed JSON. Raises pydantic.ValidationError, which names every wrong field with its value."""
    return cast(Request, adapter(Request).validate_python(document))


def read_envelope(document: Any) -> Envelope:
    """An envelope from parsed JSON. Raises pydantic.ValidationError."""
    return cast(Envelope, adapter(Envelope).validate_python(document))


def dump(value: Any) -> Any:
    """JSON-ready form of any dataclass of this module."""
    return adapter(type(value)).dump_python(value, mode="json")


def dump_bytes(value: Any) -> bytes:
    """The same as JSON text without spaces."""
    return adapter(type(value)).dump_json(value)


def read_bytes(kind: type[T], document: bytes) -> T:
    """A dataclass of this module from JSON text. Raises pydantic.ValidationError."""
    found: T = adapter(kind).validate_json(document)
    return found


def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Pydantic's reader and writer of a class, made once: making one takes longer than a decision."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def schema() -> dict[str, Any]:
    """JSON Schemas by name, derived from the classes above."""
    return {cls.__name__: adapter(cls).json_schema() for cls in (Request, Envelope, Decision)}
