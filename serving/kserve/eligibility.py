"""Envelope with a shopper -> envelope with the candidates that the rules allow; with none, a complete no_promo draft."""

from time import perf_counter

from promolift.contracts.decisions import Envelope
from promolift.policy.constraints import Policy, no_promo
from promolift.policy.eligibility import CompiledRules
from promolift.policy.exploration import rollout_bucket
from promolift.policy.rules import Rules
from serving.kserve.stamp import stamped


class Eligibility:
    """The second box. `policy` tells a draft's bucket (holdout or not) and, by its salt, the shopper's bucket of a rollout."""

    name = "eligibility"

    def __init__(self, rules: Rules, policy: Policy) -> None:
        self._rules = CompiledRules(rules)
        self._policy = policy

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with `candidates`, and with `decision` when there is none to choose from."""
        started = perf_counter()
        known = envelope.shopper.features if envelope.shopper and envelope.shopper.found else {}
        candidates = self._rules.candidates(envelope.request, known or envelope.request.context)
        draft = None if candidates.promo_ids else no_promo(envelope.request, "no_eligible_promo", self._policy)
        bucket = rollout_bucket(envelope.request.shopper_id, self._policy.hash_salt)
        return stamped(
            envelope, self.name, self._rules.rules.version, started, candidates=candidates, decision=draft, rollout=bucket
        )  # fmt: skip
