"""Name and options -> one box of the graph, with only the libraries that this box needs."""

from dataclasses import dataclass
from pathlib import Path

from promolift.contracts.decisions import NODES
from promolift.errors import InputError
from promolift.policy.constraints import Policy
from promolift.settings import Settings
from serving.kserve.redis_client import connect
from serving.kserve.stamp import Box

RULES = Path(__file__).parent.parent / "rules.yaml"


@dataclass(frozen=True)
class Sources:
    """Where boxes get what they need; a box reads only its own."""

    redis_url: str
    model: Path
    registry: Path
    rules: Path = RULES
    spill: Path = Path("undelivered.jsonl")


def build(name: str, sources: Sources, settings: Settings) -> Box:
    """The box. Raises InputError for an unknown name or bad file, UnavailableError when Redis is down."""
    makers = {"transformer": _transformer, "eligibility": _eligibility, "predictor": _predictor, "constraints": _constraints}
    if name not in makers:
        raise InputError(f"There is no box '{name}'; the boxes are {', '.join(NODES)}.")
    return makers[name](sources, settings)


def policy_of(settings: Settings) -> Policy:
    """The decision's parameters."""
    return Policy(
        settings.lambda_cost, settings.explore_share, settings.holdout_share, settings.hash_salt, settings.do_no_harm
    )  # fmt: skip


def _transformer(sources: Sources, settings: Settings) -> Box:
    connect(sources.redis_url).close()  # before Feast, which takes seconds to load
    from serving.kserve.model_folder import load_manifest, need_features  # noqa: PLC0415
    from serving.kserve.online_features import OnlineFeatures  # noqa: PLC0415
    from serving.kserve.transformer import Transformer  # noqa: PLC0415

    features = OnlineFeatures(sources.registry, sources.redis_url)
    if sources.model.is_dir():  # where both are at hand the contradiction is said at the start, not with the first decision
        need_features(load_manifest(sources.model), features.version)
    return Transformer(features)


def _eligibility(sources: Sources, settings: Settings) -> Box:
    from serving.kserve.eligibility import Eligibility, load_rules  # noqa: PLC0415
    from serving.kserve.model_folder import load_manifest  # noqa: PLC0415

    return Eligibility(load_rules(sources.rules, load_manifest(sources.model).promos), policy_of(settings))


def _predictor(sources: Sources, settings: Settings) -> Box:
    from serving.kserve.predictor import Predictor  # noqa: PLC0415

    return Predictor(sources.model)


def _constraints(sources: Sources, settings: Settings) -> Box:
    from promolift.policy.ledger import Ledger  # noqa: PLC0415
    from serving.kserve.constraints import Constraints  # noqa: PLC0415
    from serving.kserve.decision_log import spill_to  # noqa: PLC0415
    from serving.kserve.eligibility import load_rules  # noqa: PLC0415
    from serving.kserve.model_folder import load_manifest  # noqa: PLC0415

    promos = load_manifest(sources.model).promos
    ledger = Ledger(connect(sources.redis_url))
    ledger.set_budget_if_unset(settings.budget_cents)
    rules = load_rules(sources.rules, promos)
    spill = spill_to(sources.spill)
    return Constraints(policy_of(settings), rules, promos, ledger=ledger, ttl_s=settings.reservation_ttl_s, spill=spill)
