"""A logged envelope -> why the shopper got what they got, in plain words."""

from promolift.contracts.decisions import Decision, Envelope
from promolift.contracts.promos import NO_PROMO

WHY = {
    "best_profit": "it promises the most profit of all that could be given",
    "explored": "it was drawn at random, so that the model keeps learning",
    "randomised": "this shopper belongs to the randomised group, where every eligible promo is as likely as none",
    "rules_only": "nothing could be scored and the rules name it as a fallback",
    "holdout": "this shopper belongs to the holdout, which never gets a promo",
    "no_eligible_promo": "the rules allow no promo",
    "not_profitable": "no promo promises more profit than giving none",
    "would_harm": "no promo is shown to do no harm",
    "budget_exhausted": "the budget cannot pay the promos that would have been given",
    "cap_reached": "the shopper has had as many promos as the caps allow",
    "model_error": "the model could not score and nothing stands in for it",
    "budget_unavailable": "the ledger did not answer, and a promo that no budget covers is not given",
    "deadline": "the decision was not ready in time",
    "graph_unavailable": "the graph did not answer",
}
REFUSED = {
    "budget": "the budget cannot pay it", "cap_per_day": "given as often today as allowed",
    "cap_per_week": "given as often this week as allowed",
    "shopper_cap_per_day": "the shopper has had all promos of today", "shopper_cap_per_week": "the shopper has had all promos of this week",
    "cool_down": "given too short a time ago", "excluded": "a promo that excludes it was given",
}  # fmt: skip


def explain(envelope: Envelope) -> str:
    """A paragraph of head lines, then a line a promo."""
    request, decision = envelope.request, envelope.decision
    if decision is None:
        return f"Request {request.request_id} of shopper {request.shopper_id} has no decision."
    given = "no promo" if decision.promo_id == NO_PROMO else f"promo {decision.promo_id}"
    basket = sum(line.amount_cents for line in request.basket)
    lines = [
        f"Decision {decision.decision_id}: shopper {request.shopper_id} got {given} at {request.moment}, because {WHY[decision.reason]}.",
        f"Asked from channel {request.channel}, store '{request.store_id}', basket of {basket / 100:.2f} in {len(request.basket)} lines.",
        *_features(envelope),
        *(f"Not as it should be: {what.replace('_', ' ')}." for what in envelope.degraded),
        *_promos(envelope, decision),
        f"Drawn with {', '.join(f'{arm} {p:.3f}' for arm, p in decision.propensities.items())}; bucket {decision.bucket}.",
        *_money(decision),
        *(f"Version of {name}: {version}." for name, version in envelope.versions.items()),
    ]
    return "\n".join(lines)


def _features(envelope: Envelope) -> list[str]:
    shopper = envelope.shopper
    if shopper is None:
        return ["No features were read."]
    if not shopper.found:
        return ["The shopper's features were not known; defaults stand for them."]
    return [f"The shopper's features were {(shopper.age_s or 0) / 3600:.1f} hours old."]


def _promos(envelope: Envelope, decision: Decision) -> list[str]:
    lines = [f"  {sentence}" for sentence in (envelope.candidates.refused.values() if envelope.candidates else ())]
    scores, candidates = envelope.scores, envelope.candidates
    if scores is None or candidates is None:
        return lines
    lines += [f"  {scores.error}"] if scores.error else []
    for promo_id, value, lower, cost in zip(candidates.promo_ids, scores.value, scores.lower, scores.cost, strict=False):
        verdict = REFUSED.get(decision.refused.get(promo_id, ""), "may harm" if lower < 0 else "feasible")
        lines.append(f"  promo {promo_id}: uplift {value:.1f}, at least {lower:.1f}, cost {cost:.1f} cents: {verdict}")
    return lines


def _money(decision: Decision) -> list[str]:
    prices = [f"A cent of budget '{name}' was priced at {price:.3f}." for name, price in decision.prices.items()]
    if decision.reservation_id is None:
        return prices
    return [*prices, f"Reserved {decision.reserved_cents / 100:.2f} until {decision.expires_at}."]
