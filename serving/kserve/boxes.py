"""Name and options -> one box of the graph, with only the libraries that this box needs."""

from dataclasses import dataclass
from pathlib import Path

from promolift.contracts.artifacts import ModelManifest
from promolift.contracts.decisions import NODES
from promolift.errors import InputError
from promolift.feast_redis import skip_type_checks
from promolift.policy.constraints import Policy
from promolift.policy.ledger import Ledger
from promolift.policy.rules import Rules, load_rules
from promolift.policy.token import Keys
from promolift.settings import Settings
from serving.kserve.constraints import Constraints, Pace, Terms
from serving.kserve.model_folder import load_manifest, need_digest, need_features
from serving.kserve.redis_client import Line, client
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
    rollout: Path | None = None
    """Of the fused service: the folder of rollout.py."""


def build(name: str, sources: Sources, settings: Settings) -> Box:
    """The box. Redis is asked first by the first request. Raises InputError for an unknown name or a bad file."""
    makers = {"transformer": _transformer, "eligibility": _eligibility, "predictor": _predictor, "constraints": _constraints}
    if name not in makers:
        raise InputError(f"There is no box '{name}'; the boxes are {', '.join(NODES)}.")
    return makers[name](sources, settings)


def policy_of(settings: Settings) -> Policy:
    """The decision's parameters."""
    return Policy(
        settings.lambda_cost, settings.explore_share, settings.holdout_share, settings.hash_salt, settings.do_no_harm,
        settings.randomised_share, settings.temperature_cents, settings.rank_by,
    )  # fmt: skip


def keys_of(settings: Settings) -> Keys:
    """The keys of the tokens. Raises InputError when there is none."""
    return Keys({key_id: secret.get_secret_value() for key_id, secret in settings.token_keys.items()})


def rules_of(sources: Sources, manifest: ModelManifest) -> Rules:
    """The rules for the model's catalogue. Raises InputError."""
    return load_rules(sources.rules, manifest.promos, manifest.vocabularies)


def manifest_of(sources: Sources, settings: Settings) -> ModelManifest:
    """The manifest of the model that this deployment means. Raises InputError for any other."""
    manifest = load_manifest(sources.model)
    need_digest(manifest, settings.model_sha256)
    return manifest


def terms_of(sources: Sources, settings: Settings) -> Terms:
    """What decisions are made by. Raises InputError."""
    manifest = manifest_of(sources, settings)
    total, decisions = settings.budget_cents, settings.pace_decisions
    pace = Pace(total, total / decisions if decisions else 0.0, settings.pace_step)
    return Terms(policy_of(settings), rules_of(sources, manifest), manifest.promos, settings.reservation_ttl_s, keys_of(settings), pace)


def _transformer(sources: Sources, settings: Settings) -> Box:
    skip_type_checks()
    from serving.kserve.online_features import OnlineFeatures  # noqa: PLC0415 (loads Feast)
    from serving.kserve.transformer import Ages, Transformer  # noqa: PLC0415

    features = OnlineFeatures(sources.registry, sources.redis_url, settings.redis_timeout_ms / 1_000)
    if sources.model.is_dir():  # where both are at hand the contradiction is said at the start, not with the first decision
        need_features(manifest_of(sources, settings), features.version)
    return Transformer(features, Ages(settings.features_stale_s, settings.features_expired_s))


def _eligibility(sources: Sources, settings: Settings) -> Box:
    from serving.kserve.eligibility import Eligibility  # noqa: PLC0415

    return Eligibility(rules_of(sources, manifest_of(sources, settings)), policy_of(settings))


def _predictor(sources: Sources, settings: Settings) -> Box:
    from serving.kserve.predictor import Predictor  # noqa: PLC0415

    manifest_of(sources, settings)
    return Predictor(sources.model)


def _constraints(sources: Sources, settings: Settings) -> Box:
    from serving.kserve.spool import spill_to  # noqa: PLC0415

    timeout_s = settings.redis_timeout_ms / 1_000
    ledger = Ledger(client(sources.redis_url, timeout_s), call=Line(sources.redis_url, timeout_s))
    return Constraints(terms_of(sources, settings), ledger, spill_to(sources.spill))
