"""What the folders between stages hold, drawn; and the records inside them.

run folder (DIR of `pipelines.run` and `pipelines.demo`)
├── lake/                            below
├── truth/                           Delta table `truth`, only of a simulated experiment
├── models/                          one folder a candidate, below; seeds/ their scores with other seeds; checkpoints/ while it trains
├── search/                          <candidate>.json and one study a candidate, where parameters were searched
├── evaluation/                      verdict.json (Verdict), metrics.json, curves.png, spend.png, calibration.png
├── dossier/                         what a reviewer decides by: components/write_dossier.py draws it
├── measured_truth/                  truth.json: how near each candidate comes to the known effects
├── champion/                        the registry's champion as the run found it
├── serving_model/                   the model folder that is served
├── docs/                            one folder a validated layer: index.html, result.json
├── stages/                          <stage>.json: what stages that train, register and compare with the truth say of their work
├── redis/                           dump of the online store, its log and lock
├── mlflow.db mlruns/                the registry and its artifacts, unless PROMOLIFT_MLFLOW_URI names another
├── registry.db                      Feast's registry
├── run.json                         Origin: what the lake was made from
├── report.html summary.json         the run for people and for programs
├── pipeline.log .kfp/ .users .lock  what the stages printed; their cache and scratch; containers' list of users; held by the run at work
├── serving.json serving.log logs/   while it is served: where; what the server and each of its programs printed
├── api_keys.json token_keys.json    hashes of the served engine's API keys; the secret that signs its tokens
├── versions/                        rules, policies and models by version, from which logged decisions are made again
├── rollout/                         graph.yaml that stands, candidate/ its model; what promotions bring, look at and print
└── undelivered.jsonl undelivered.taken undelivered.unreadable   answers given while the ledger was away; a record cut off

lake/
├── landing/                         files as delivered: <table>/*.parquet, source.json (SourceCard)
├── bronze/ silver/ gold/ serving/   Delta tables of contracts.tables, one a folder
└── lineage/                         <job>.json (Lineage): Delta versions read and written

models/<name>/                       uplift_net, lightgbm, response, and what --learners asked for
├── model.tflite                     see ModelManifest for its signature
├── manifest.json                    ModelManifest
├── reference.json reference.npz     what its traffic looks like without drift (promolift.drift.reference), of the one that was registered
└── scores.parquet                   scored rows: exposure_id, split, value_<promo>, cost_<promo>
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from promolift.contracts.promos import Covariate, Promo, SourceCard
from promolift.errors import InputError
from promolift.storage import Place, read_text

CANDIDATES: tuple[str, ...] = ("uplift_net", "lightgbm", "response")
"""Models that every run trains on the same split; the response model ranks by outcome, not by uplift."""

Status = Literal["passed", "failed", "cannot tell"]


@dataclass(frozen=True)
class Lineage:
    """What one job read and wrote: Delta version, rows and schema hash per table path."""

    job: str
    reads: dict[str, int]
    writes: dict[str, dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class ModelManifest:
    """Says what `model.tflite` is and refuses to be served with other features or another file.

    Signature: input `numeric` float32 [1, len(numeric)] in the order of `numeric`; input `attributes` int32 [1, len(attributes)],
    each an index into `vocabularies[name]` (0 is unknown). Outputs `value`, `cost` float32 [1, len(promos)]: incremental value
    (objective's unit) and promo cost in cents of each promo against no_promo.
    `harm_bound`: per promo ascending (score, lower bound) knots: one-sided 95 % lower bound of the mean effect of shoppers scored so.
    `support`: least and greatest train value by numeric feature; a shopper outside is not scored. `prior`: by segment ("*": everybody,
    "name=value") and promo the mean effect, its lower bound and the mean cost, for a shopper who cannot be scored.
    """

    name: str
    sha256: str
    features_hash: str
    numeric: tuple[str, ...]
    attributes: tuple[str, ...]
    vocabularies: dict[str, tuple[str, ...]]
    promos: tuple[Promo, ...]
    objective: str
    harm_bound: dict[str, tuple[tuple[float, float], ...]]
    tables: dict[str, int]
    seed: int
    created_at: str
    support: dict[str, tuple[float, float]] = field(default_factory=dict)
    prior: dict[str, dict[str, tuple[float, float, float]]] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Name and first digits of the file's hash: what log, trail and graph call the model."""
        return f"{self.name}-{self.sha256[:12]}"


@dataclass(frozen=True)
class Check:
    """One check of the gate: a number against a limit. `detail` is a sentence a reviewer can read."""

    name: str
    status: Status
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer for `chosen`, one of the candidates. `promoted` is true when no check failed or could not tell."""

    chosen: str
    promoted: bool
    checks: tuple[Check, ...]
    reasons: tuple[str, ...] = field(default=())


def json_text(record: Any) -> str:
    """A dataclass or plain dict as sorted, indented JSON; the same record gives the same bytes."""
    document = asdict(record) if hasattr(record, "__dataclass_fields__") else record
    return json.dumps(document, indent=2, sort_keys=True, default=str) + "\n"


def write_json(path: Path, record: Any) -> Path:
    """Write a record to a file of this machine, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(record), encoding="utf-8")
    return path


def _promos(rows: list[dict[str, Any]]) -> tuple[Promo, ...]:
    return tuple(Promo(**row) for row in rows)


def read_source_card(lake: Place) -> SourceCard:
    """The card of the source that filled this lake. Raises InputError when nothing was landed or its card is damaged."""
    path = f"{lake}/landing/source.json"
    try:
        return _card(json.loads(read_text(path)))
    except FileNotFoundError as cause:
        raise InputError(f"'{path}' is missing: nothing was landed in this lake; land a source first.") from cause
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise InputError(f"'{path}' is no source card ({cause}); land the source again.") from cause


def _card(document: dict[str, Any]) -> SourceCard:
    lists = {
        "promos": _promos(document["promos"]),
        "covariates": tuple(Covariate(**row) for row in document.get("covariates", ())),
        "segments": tuple(document.get("segments", ())),
    }
    return SourceCard(**{**document, **lists})


def read_manifest(folder: Path) -> ModelManifest:
    """The manifest of one model folder."""
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    document["promos"] = _promos(document["promos"])
    for name in ("numeric", "attributes"):
        document[name] = tuple(document[name])
    document["vocabularies"] = {k: tuple(v) for k, v in document["vocabularies"].items()}
    document["harm_bound"] = _knots(document["harm_bound"], document["promos"])
    document["support"] = {name: tuple(ends) for name, ends in document.get("support", {}).items()}
    prior = document.get("prior", {})
    document["prior"] = {segment: {name: tuple(row) for name, row in found.items()} for segment, found in prior.items()}
    return ModelManifest(**document)


def _knots(bounds: Any, promos: tuple[Promo, ...]) -> dict[str, tuple[tuple[float, float], ...]]:
    """By promo; a champion registered before 0.2 has one curve for all of them."""
    by_promo = bounds if isinstance(bounds, dict) else {promo.promo_id: bounds for promo in promos}
    return {name: tuple((float(a), float(b)) for a, b in knots) for name, knots in by_promo.items()}


def read_verdict(path: Path) -> Verdict:
    """The verdict that the gate wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    checks = tuple(Check(**row) for row in document["checks"])
    return Verdict(document["chosen"], document["promoted"], checks, tuple(document["reasons"]))
