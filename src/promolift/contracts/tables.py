"""Every table once: columns, keys and limits; Spark schemas, expectations and Feast fields are derived from it.

A source of events has the tables written here. A source that is a table of decisions has fewer, with columns of its own: `schema_of`.

Layers: landing (files as delivered) -> bronze (as received, plus where it came from) -> silver (deduplicated, conformed) -> gold.
`quarantine` keeps every refused row with its reason. `truth` lies outside the lake, so that training and the gate cannot read it.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

from promolift.contracts.features import ATTRIBUTE_NAMES, RETAIL, FeatureSet, features_of
from promolift.contracts.promos import CATEGORY_NAMES, SourceCard

Dtype = Literal["string", "int64", "float32", "float64", "bool", "timestamp", "list<string>", "list<float64>"]
Layer = Literal["landing", "bronze", "silver", "gold", "serving", "truth"]
BUCKETS = ("uniform", "skewed", "holdout", "randomised", "policy", "explore")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Column:
    """One column; `minimum` and `maximum` are inclusive, `allowed` lists every legal value, `doc` says meaning and unit."""

    name: str
    dtype: Dtype
    doc: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """One table; `key` columns together are unique. `may_be_empty`: not every source fills it."""

    name: str
    layer: Layer
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    doc: str
    may_be_empty: bool = False

    @property
    def path(self) -> str:
        """Place below the lake's root."""
        return f"{self.layer}/{self.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(c.name for c in self.columns)

    @property
    def schema_hash(self) -> str:
        """Hash of names, types and nullability, recorded in lineage."""
        text = ";".join(f"{c.name}:{c.dtype}:{c.nullable}" for c in self.columns)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _text(name: str, doc: str, **limits: object) -> Column:
    return replace(Column(name, "string", doc), **limits)  # type: ignore[arg-type]


def _cents(name: str, doc: str, minimum: float | None = 0) -> Column:
    return Column(name, "int64", doc + " (cents)", minimum=minimum)


def _time(name: str, doc: str) -> Column:
    return Column(name, "timestamp", doc + " (UTC)")


_SHOPPER = _text("shopper_id", "who")
_ARRIVED = _time("arrived_at", "when the event reached us")
_ARMS = (
    _text("bucket", "how the arm was assigned", allowed=BUCKETS),
    _text("promo_id", "arm given, or no_promo"),
    Column("propensities", "list<float64>", "probability of each arm, in the order of SourceCard.arms; sums to 1"),
)

LANDING: tuple[Table, ...] = (
    Table("products", "landing", ("product_id",), (
        _text("product_id", "what"), _text("department", "the source's own department", nullable=True),
    ), "reference data"),
    Table("shoppers", "landing", ("shopper_id",), (
        _SHOPPER, *(_text(name, "attribute", nullable=True) for name in ATTRIBUTE_NAMES),
    ), "reference data; a shopper may be missing here"),
    Table("purchases", "landing", ("event_id",), (
        _text("event_id", "one POS line"), _SHOPPER, _text("store_id", "where"), _text("basket_id", "which basket"),
        _text("product_id", "what"), Column("quantity", "int64", "units", minimum=0),
        _cents("sales_cents", "paid for the line before promo cost"), _cents("discount_cents", "shelf discount on the line"),
        _time("event_time", "when bought"), _ARRIVED,
    ), "POS lines"),
    Table("visits", "landing", ("event_id",), (
        _text("event_id", "one visit"), _SHOPPER, _time("event_time", "when"), _ARRIVED,
    ), "visits without a basket (web)", may_be_empty=True),
    Table("assignments", "landing", ("exposure_id",), (
        _text("exposure_id", "one decision"), _SHOPPER, _time("moment", "when decided"), *_ARMS, _ARRIVED,
    ), "which arm a shopper was given, and with which probability"),
    Table("redemptions", "landing", ("event_id",), (
        _text("event_id", "one redemption"), _text("exposure_id", "of which decision"), _SHOPPER, _text("promo_id", "of which promo"),
        _cents("cost_cents", "what the redemption cost us"), _time("event_time", "when redeemed"), _ARRIVED,
    ), "redeemed promos", may_be_empty=True),
)  # fmt: skip

_FROM = _text("delivery", "file that brought the row")


def bronze_of(landed: Table) -> Table:
    """As delivered, bad rows too, so any value may be missing."""
    return replace(landed, layer="bronze", key=(), columns=(*(replace(c, nullable=True) for c in landed.columns), _FROM))


BRONZE: tuple[Table, ...] = tuple(map(bronze_of, LANDING))
QUARANTINE = Table("quarantine", "bronze", ("row_id",), (
    _text("row_id", "hash of table, delivery and row"), _text("table_name", "for which silver table"), _text("reason", "why refused"),
    _text("row", "the row as JSON"), _FROM,
), "every refused row; never dropped", may_be_empty=True)  # fmt: skip

_SILVER_EXTRA: dict[str, tuple[Column, ...]] = {
    "products": (_text("category", "conformed category", allowed=CATEGORY_NAMES),),
    "purchases": (_text("category", "conformed category", allowed=CATEGORY_NAMES), _cents("margin_cents", "assumed gross margin")),
}


def silver_of(landed: Table) -> Table:
    """The landing table deduplicated and conformed."""
    return replace(landed, layer="silver", columns=(*landed.columns, *_SILVER_EXTRA.get(landed.name, ())))


SILVER: tuple[Table, ...] = tuple(map(silver_of, LANDING))

EXPOSURES = Table("exposures", "gold", ("exposure_id",), (
    _text("exposure_id", "one decision"), _SHOPPER, _time("moment", "when decided"), *_ARMS,
    Column("propensity", "float64", "logged probability of the arm given", minimum=1e-6, maximum=1),
    _text("split", "by shopper hash, so that no shopper is in two splits", allowed=SPLITS),
    _time("window_end", "end of the outcome window"),
), "who was given what, with which probability")  # fmt: skip


def _features(features: FeatureSet) -> Table:
    numeric = (Column(name, "float32", "numeric feature") for name in features.numeric_names)
    attributes = (_text(name, "attribute") for name in features.attribute_names)
    columns = (_SHOPPER, _time("moment", "as of when: only events before it count"), *numeric, *attributes)
    doc = "point-in-time features at every decision, and at the end of the data for serving"
    return Table("features", "gold", ("shopper_id", "moment"), columns, doc)


FEATURES = _features(RETAIL)
LABELS: tuple[Column, ...] = (
    Column("visited", "bool", "any visit or basket in the window"), Column("converted", "bool", "any basket in the window"),
    _cents("spend_cents", "sales in the window"), _cents("margin_cents", "gross margin in the window, before promo cost"),
    _cents("cost_cents", "redemption and contact cost"),
)  # fmt: skip


def _examples(features: Table, labels: tuple[Column, ...] = LABELS) -> Table:
    columns = (*EXPOSURES.columns, *features.columns[2:], *labels)
    return Table("examples", "gold", ("exposure_id",), columns, "exposures with features and closed labels")


EXAMPLES = _examples(FEATURES)
TRUTH = Table("truth", "truth", ("exposure_id", "promo_id"), (
    _text("exposure_id", "one decision"), _SHOPPER, _time("moment", "when"), _text("promo_id", "arm"),
    _text("kind", "kind of shopper for this promo", allowed=("persuadable", "sure_thing", "lost_cause", "sleeping_dog")),
    Column("profit_cents", "float64", "expected incremental profit against no_promo"),
    Column("margin_cents", "float64", "expected incremental margin"), Column("cost_cents", "float64", "expected promo cost"),
), "known uplift of the simulated experiment")  # fmt: skip

EVERYBODY = "everybody"
"""The segment of all shoppers."""
LIFT = Table("lift", "gold", ("experiment", "contrast", "bucket", "arm", "segment", "metric", "method"), (
    _text("experiment", "whose decisions", allowed=("assignments", "decisions")),
    _text("contrast", "what is compared: a bucket or a model with the holdout, a promo with no_promo, a canary with the champion",
          allowed=("programme", "arm", "canary", "model", "model_arm")),
    _text("bucket", "whose shoppers; of a promo by model, the model"),
    _text("arm", "the promo, the canary's version, or the model; empty for a programme"),
    _text("segment", "predeclared part of the shoppers, or everybody"), _text("metric", "which outcome"),
    _text("method", "plain, or adjusted for what came before", allowed=("plain", "cuped")),
    Column("effect", "float64", "difference of means a decision (cents, or a share)"),
    Column("error", "float64", "its standard error", minimum=0),
    Column("z", "float64", "standard errors of the interval: more than 1.96 where a canary is looked at several times"),
    Column("low", "float64", "lower end of the interval"), Column("high", "float64", "upper end"),
    Column("control_mean", "float64", "mean of the control a decision"), Column("theta", "float64", "weight of the adjustment"),
    Column("decisions", "int64", "of the group"), Column("control_decisions", "int64", "of the control"),
    Column("shoppers", "int64", "of the group"), Column("control_shoppers", "int64", "of the control"),
    Column("srm_p", "float64", "p-value of the arms given against their logged probabilities", nullable=True, minimum=0, maximum=1),
    Column("p_harm", "float64", "of a segment's profit: p-value of a loss, Holm-adjusted", nullable=True, minimum=0, maximum=1),
    Column("look", "int64", "which look at a canary", nullable=True), Column("looks", "int64", "of how many", nullable=True),
), "incremental profit, sales, cost and redemptions, from holdout and randomised traffic")  # fmt: skip
DECISIONS = Table("decisions", "serving", ("decision_id",), (
    _text("decision_id", "one decision"), _text("request_id", "idempotency key"), _SHOPPER, _time("moment", "when asked"),
    _text("promo_id", "promo or no_promo"), _text("reason", "why"), _text("bucket", "how the arm came about", allowed=BUCKETS),
    Column("propensity", "float64", "probability of the arm given, over the final feasible set", minimum=0, maximum=1),
    Column("expected_profit_cents", "float64", "predicted incremental profit of the arm"),
    _cents("reserved_cents", "budget reserved"), _text("model_version", "which model scored"),
    Column("latency_ms", "float64", "from request to decision", minimum=0), _text("envelope", "the whole envelope as JSON"),
    _text("entry_id", "place in the ledger's stream"),
    _text("budgets", "name, total, committed and reserved cents of each budget asked, before this decision; a line each"),
), "the decision log: everything needed to explain a decision")  # fmt: skip
LEDGER_EVENTS = Table("ledger_events", "serving", ("event_id",), (
    _text("event_id", "place in the ledger's stream"),
    _text("event", "what happened", allowed=("committed", "released", "expired", "budget")),
    _text("reservation_id", "whose reservation; empty for a budget"), _text("budget", "which budget"),
    _cents("cents", "spent, returned or the budget's new total"), _time("at", "by the ledger's clock"), _text("actor", "who"),
    _text("reason", "why"), Column("rate", "float64", "of a budget: cents of cost a decision at which lambda rests", minimum=0),
    Column("step", "float64", "of a budget: how far one decision moves lambda", minimum=0),
), "what became of reservations and budgets: with the decisions enough to rebuild the ledger")  # fmt: skip
PROMOTIONS = Table("promotions", "serving", ("seq",), (
    Column("seq", "int64", "place in the trail, from 1", minimum=1), _text("version", "registered version"),
    _text("model", "name and digest"), _text("action", "what was done"), _text("stage_from", "stage before"),
    _text("stage_to", "stage after"), _text("actor", "who"), _time("at", "when"), _text("reason", "why"),
    _text("evidence", "hash of the dossier"), _text("champion", "version that reigned then"),
    _text("graph", "hash of the graph that the stage means"), _text("detail", "more, as JSON"),
    _text("previous", "hash of the entry before"), _text("hash", "hash of this entry"),
), "who moved which model version, when and why: append-only, hash-chained")  # fmt: skip
SHADOW_DECISIONS = Table("shadow_decisions", "serving", ("decision_id", "model_version"), (
    _text("decision_id", "the decision that was given"), _SHOPPER, _text("model_version", "the candidate that was asked beside it"),
    _text("given", "promo or no_promo that was given"), _text("promo_id", "promo or no_promo that the candidate would have given"),
    _cents("given_cents", "reserved for what was given"), _cents("cents", "would have been reserved"),
    Column("score", "float64", "highest value that the model in service predicted (cents)", nullable=True),
    Column("shadow_score", "float64", "highest value that the candidate predicts (cents)", nullable=True),
), "what a candidate would have answered, without influence")  # fmt: skip

RETRAININGS = Table("retrainings", "serving", ("cause", "status"), (
    _text("cause", "what set it off: kind, model and first day, so that one cause is one retraining"),
    _text("kind", "alarm, schedule, labels"),
    _text("model", "name and digest of the model that was watched"), _text("reason", "why, in a sentence"), _time("at", "when"),
    _text("status", "begun, registered or refused"), _text("root", "where the training's data and models are"),
    _text("candidate", "name and digest of the model that came of it"), _text("dossier", "hash of its evidence"),
), "which cause started which training, and what came of it: append-only")  # fmt: skip

LOGGED = (DECISIONS, LEDGER_EVENTS, PROMOTIONS)
"""What serving and promotion write, and `measure_lift` reads where it is there."""

TABLES: tuple[Table, ...] = (
    *BRONZE, QUARANTINE, *SILVER, EXPOSURES, FEATURES, EXAMPLES, TRUTH, LIFT, DECISIONS, LEDGER_EVENTS, PROMOTIONS,
    SHADOW_DECISIONS, RETRAININGS,
)  # fmt: skip


def table(layer: Layer, name: str) -> Table:
    """The table of that layer and name. Raises KeyError for a name that no layer has."""
    for candidate in (*TABLES, *LANDING):
        if (candidate.layer, candidate.name) == (layer, name):
            return candidate
    raise KeyError(f"No table '{name}' in layer '{layer}'; see promolift.contracts.tables.")


@dataclass(frozen=True)
class Schema:
    """The tables of one source, in the order in which they are ingested."""

    landing: tuple[Table, ...]
    features: Table
    examples: Table

    @property
    def bronze(self) -> tuple[Table, ...]:
        """The landing tables as received."""
        return tuple(map(bronze_of, self.landing))

    @property
    def silver(self) -> tuple[Table, ...]:
        """The landing tables deduplicated and conformed."""
        return tuple(map(silver_of, self.landing))

    @property
    def stored(self) -> tuple[Table, ...]:
        """Every Delta table of the lake that the jobs read or write."""
        return (*self.bronze, QUARANTINE, *self.silver, EXPOSURES, self.features, self.examples)


RETAIL_SCHEMA = Schema(LANDING, FEATURES, EXAMPLES)


def schema_of(card: SourceCard) -> Schema:
    """The tables of a source: of events, or of decisions, which are assignments and `trials` with the source's own covariates."""
    if not card.covariates:
        return RETAIL_SCHEMA
    features = _features(features_of(card))
    labels = tuple(replace(c, minimum=None) if c.name == "margin_cents" else c for c in LABELS)  # an outcome may be a loss
    return Schema((table("landing", "assignments"), _trials(card)), features, _examples(features, labels))


def _trials(card: SourceCard) -> Table:
    given = (
        Column(c.name, "string" if c.kind == "text" else "float64", "known before the decision", nullable=True) for c in card.covariates
    )
    outcomes = (
        Column("converted", "bool", "the outcome that is yes or no"),
        _cents("margin_cents", "the outcome in money, before promo cost", minimum=None), _cents("cost_cents", "cost of the promo"),
    )  # fmt: skip
    columns = (_text("exposure_id", "which decision"), _SHOPPER, _time("moment", "when decided"), *given, *outcomes, _ARRIVED)
    return Table("trials", "landing", ("exposure_id",), columns, "covariates and outcomes of a source that is a table of decisions")
