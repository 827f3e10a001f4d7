"""What the promo engine's API takes and gives; JSON Schema and OpenAPI are derived from these classes."""

from dataclasses import field
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from promolift.contracts.decisions import Bucket, Degraded, Envelope, Name, Request, Text

MOST_REQUESTS = 100
Cents = Annotated[int, Field(ge=0, le=2**53, strict=True)]
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, config=_STRICT)
class Answer:
    """What a shopper gets. `promo_id` is a promo or no_promo; `reasons`: why, the decisive one first; `cents`: the most that it pays.

    `token`: what the till verifies, until `expires_at`. `repeated`: it is the answer that this request id got before. `degraded`: what
    was not as it should be. `timings_ms`: by box.
    """

    request_id: str
    decision_id: str
    promo_id: str
    reasons: tuple[str, ...]
    bucket: Bucket
    cents: int = 0
    expires_at: str | None = None
    token: str | None = None
    repeated: bool = False
    degraded: tuple[Degraded, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


@checked(frozen=True, config=_STRICT)
class Batch:
    """Several shoppers in one call; each request has an id of its own."""

    requests: Annotated[tuple[Request, ...], Field(min_length=1, max_length=MOST_REQUESTS)]


@checked(frozen=True, config=_STRICT)
class Problem:
    """RFC 9457: what was wrong, with an entry a wrong field."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    errors: tuple[dict[str, Any], ...] = ()


@checked(frozen=True, config=_STRICT)
class Result:
    """One request of a batch: its answer, or why there is none."""

    request_id: str
    answer: Answer | None = None
    problem: Problem | None = None


@checked(frozen=True, config=_STRICT)
class Results:
    """Of every request of a batch, in its order."""

    results: tuple[Result, ...]


@checked(frozen=True, config=_STRICT)
class Redemption:
    """A till redeems a token: `cents` is what the promo took off; `shopper_id` only where the till knows it."""

    token: Annotated[str, Field(min_length=1, max_length=4096)]
    cents: Cents
    store_id: Text = ""
    shopper_id: Name | None = None


@checked(frozen=True, config=_STRICT)
class Redeemed:
    """A redemption that counts; a repeat of the same gives the same."""

    reservation_id: str
    promo_id: str
    cents: int


@checked(frozen=True, config=_STRICT)
class BudgetChange:
    """A budget's new total; `reason` goes into the audit. `rate_cents`: expected cost a decision at which lambda rests (0: not paced)."""

    total_cents: Cents
    reason: Name
    rate_cents: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0


@checked(frozen=True, config=_STRICT)
class BudgetState:
    """A budget now, in cents; `price` is lambda."""

    name: str
    total_cents: int
    committed_cents: int
    reserved_cents: int
    headroom_cents: int
    price: float
    rate_cents: float


@checked(frozen=True, config=_STRICT)
class Explanation:
    """A logged decision in plain words, and the envelope that they are made from."""

    text: str
    envelope: Envelope


def answer_of(envelope: Envelope) -> Answer:
    """The answer of a decided envelope. Raises ValueError for one without a decision."""
    decision = envelope.decision
    if decision is None:
        raise ValueError(f"The envelope of request '{envelope.request.request_id}' has no decision.")
    return Answer(
        request_id=envelope.request.request_id,
        decision_id=decision.decision_id,
        promo_id=decision.promo_id,
        reasons=(decision.reason, *sorted(set(decision.refused.values()))),
        bucket=decision.bucket,
        cents=decision.reserved_cents,
        expires_at=decision.expires_at,
        token=envelope.token,
        repeated=envelope.repeated,
        degraded=envelope.degraded,
        versions=envelope.versions,
        timings_ms=envelope.timings_ms,
    )
