"""Settings: defaults and meaning, read once in `main()` from the environment (PROMOLIFT_*) and passed down.

PROMOLIFT_SETTINGS_FILE names a file of such variables, one NAME=VALUE a line, as manifests/base/settings.env is; the environment wins.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from promolift.errors import InputError

FILE = "PROMOLIFT_SETTINGS_FILE"


class Settings(BaseSettings):
    """Everything a deployment may change; each field says what it means."""

    model_config = SettingsConfigDict(env_prefix="PROMOLIFT_", frozen=True, extra="forbid", allow_inf_nan=False)

    redis_url: str = Field("", description="Redis for online features and the ledger; empty: start our own on a free port.")
    redis_timeout_ms: int = Field(50, ge=1, le=10_000, description="A Redis that takes longer for a command is treated as absent.")
    kafka: str = Field("", description="Kafka brokers (HOST:PORT,...) for the decision log; empty: Delta tables in the lake.")
    mlflow_uri: str = Field("", description="MLflow tracking and registry URI; empty: SQLite inside the run folder.")
    model_sha256: str = Field("", description="Digest of the one model that may be served; empty: whichever is in the model folder.")
    jars: Path = Field(Path.home() / ".cache/promolift/jars", description="Spark's Delta jars, fetched once by `make setup`.")
    kfp_token: SecretStr = Field(SecretStr(""), description="Bearer token for the Kubeflow Pipelines server; empty: none is sent.")
    spark_image: str = Field("", description="Image of Spark's pods, with its tag; `pipelines.run` says it where this is empty.")
    spark_executors: int = Field(2, ge=1, description="Executors of a job in pods.")
    spark_cores: int = Field(1, ge=1, description="Tasks that an executor, or the driver, runs at once.")
    spark_core_request: str = Field("500m", description="Processor that each of Spark's pods asks its node for; it may use what is free.")
    spark_memory: str = Field("2g", description="Java heap of each of Spark's pods.")
    model_name: str = Field("promolift-uplift", description="Registered model's name.")
    holdout_share: float = Field(0.05, ge=0, lt=1, description="Shoppers who never get a promo, by salted hash.")
    randomised_share: float = Field(0.02, ge=0, lt=1, description="Shoppers who get an eligible arm at random, by salted hash.")
    explore_share: float = Field(0.10, ge=0, le=1, description="Probability of a uniform arm over the final feasible set.")
    temperature_cents: float = Field(0.0, ge=0, description="Temperature of softmax exploration; 0 explores with explore_share instead.")
    hash_salt: str = Field("promolift-1", description="Salt of the sticky assignment; a new salt reshuffles everybody.")
    budget_cents: int = Field(50_000_00, ge=0, description="Promo budget that the ledger protects.")
    reservation_ttl_s: int = Field(7 * 86_400, gt=0, description="Unredeemed reservations return to the budget after this.")
    lambda_cost: float = Field(0.0, ge=0, description="Shadow price of a cent of budget.")
    pace_decisions: int = Field(0, ge=0, description="Decisions that a budget shall last for: lambda is moved accordingly; 0: not paced.")
    pace_step: float = Field(0.002, ge=0, description="How far one decision moves lambda.")
    features_stale_s: float = Field(2 * 86_400.0, gt=0, description="Features older than this are used and the answer says so.")
    features_expired_s: float = Field(30 * 86_400.0, gt=0, description="Features older than this are not used.")
    deadline_ms: int = Field(100, ge=1, le=60_000, description="Time for a decision whose request names no deadline.")
    requests_per_s: int = Field(5_000, ge=1, description="Calls of the engine that one key or subject may make a second.")
    body_bytes: int = Field(262_144, ge=1_024, description="The largest body that the engine reads.")
    jwks_url: str = Field("", description="Where the keys of the issuer of bearer tokens are; empty: the engine takes API keys only.")
    jwt_issuer: str = Field("", description="What the claim iss of a bearer token must be.")
    jwt_audience: str = Field("promolift", description="What the claim aud of a bearer token must be.")
    token_keys: dict[str, SecretStr] = Field({}, description='Keys that sign tokens, the first one signs: {"k1": "32 bytes or more"}.')
    author: str = Field("", description="Who trains, by the name that reviewers know; empty: the user of this machine.")
    approval_key: SecretStr = Field(SecretStr(""), description="Key that signs approvals, 32 bytes or more.")
    approval_days: float = Field(14.0, gt=0, description="An approval older than this is none.")
    oidc_issuer: str = Field("", description="OpenID provider for the reviewer's page, by its issuer URL; empty: named tokens only.")
    oidc_client_id: str = Field("promolift-review", description="Our client id at that provider.")
    oidc_client_secret: SecretStr = Field(SecretStr(""), description="Our client secret at that provider.")
    oidc_name_claim: str = Field("email", description="Claim that names a person; an author's is the PROMOLIFT_AUTHOR of his trainings.")
    oidc_roles_claim: str = Field("roles", description="Claim that lists a person's roles: viewer, author, reviewer.")
    rank_by: Literal["estimate", "lower_bound"] = Field("estimate", description="What the best promo has most of; ADR 8 has the figures.")
    do_no_harm: bool = Field(True, description="Give a promo only if the lower bound of its effect is not negative.")


def load() -> Settings:
    """The settings of this process. Raises InputError that names the variable, its value, what is allowed and what it means."""
    file = os.environ.get(FILE, "")
    if file and not Path(file).is_file():
        raise InputError(f"There is no settings file {file!r}, which {FILE} names; correct the name or unset it.")
    try:
        return Settings(_env_file=file or None)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = str(first["loc"][0])
        if field not in Settings.model_fields:
            named = f"Settings file {file} has '{field.upper()}', which is no setting"
            raise InputError(f"{named}; src/promolift/settings.py lists them.") from problem
        meaning = Settings.model_fields[field].description
        raise InputError(
            f"Setting PROMOLIFT_{field.upper()} has the value {first['input']!r}: {first['msg']}. It means: {meaning}"
        ) from problem
