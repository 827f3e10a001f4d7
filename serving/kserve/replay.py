"""Logged envelopes -> the same decisions made again with the recorded versions, and what differs, bit for bit."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promolift.contracts.decisions import Candidates, Decision, Envelope, Scores, dump_bytes
from promolift.errors import InputError
from promolift.policy.constraints import Policy, Standing, arms_of, choose, no_promo
from promolift.policy.eligibility import CompiledRules
from promolift.policy.rules import Rules, load_rules
from serving.kserve.model_folder import load_manifest
from serving.kserve.predictor import Predictor
from serving.kserve.versions import kept, policy_named

ANSWERED_WITHOUT = ("budget_unavailable", "deadline", "graph_unavailable")
"""Reasons that no input of the decision shows: it is made again with them given."""


@dataclass
class Report:
    """How many decisions were made again, how many came out equal, and the first differences in words."""

    count: int = 0
    equal: int = 0
    differences: list[str] = field(default_factory=list)


class Replay:
    """Boxes by version, each loaded once. `folder` is the run's, `salt` the secret of the assignment."""

    def __init__(self, folder: Path, salt: str) -> None:
        self._folder, self._salt = folder, salt
        self._predictors: dict[str, Predictor] = {}
        self._rules: dict[tuple[str, str], CompiledRules] = {}
        self._policies: dict[str, Policy] = {}

    def run(self, envelopes: Sequence[Envelope]) -> Report:
        """Make every decision again."""
        report = Report()
        for envelope in envelopes:
            report.count += 1
            found = self.differences(envelope)
            report.equal += not found
            if found and len(report.differences) < 20:
                report.differences.append(f"decision {envelope.decision.decision_id if envelope.decision else '?'}: {'; '.join(found)}")
        return report

    def differences(self, logged: Envelope) -> list[str]:
        """What of candidates, scores and decision is not the same bytes. Raises InputError for a version that was not kept."""
        again = self.again(logged)
        pairs: dict[str, tuple[Any, Any]] = {
            "candidates": (logged.candidates, again.candidates), "scores": (logged.scores, again.scores),
            "decision": (_choice(logged.decision), _choice(again.decision)),
        }  # fmt: skip
        return [
            f"{name} was {dump_bytes(a).decode()}, is {dump_bytes(b).decode()}"
            for name, (a, b) in pairs.items()
            if a is not None and b is not None and dump_bytes(a) != dump_bytes(b)
        ]

    def again(self, logged: Envelope) -> Envelope:
        """The envelope decided anew from its request, its features and what the ledger said then."""
        if logged.decision is None:
            raise InputError(f"The logged envelope of request '{logged.request.request_id}' has no decision.")
        policy = self._policy(logged.versions.get("constraints", ""))
        if logged.candidates is None or logged.scores is None:
            return replace(logged, decision=no_promo(logged.request, logged.decision.reason, policy))
        rules = self._compiled(logged.candidates.rules_version, logged.scores.model_version)
        bare = replace(logged, candidates=None, scores=None, decision=None, degraded=_of_transformer(logged))
        known = logged.shopper.features if logged.shopper and logged.shopper.found else logged.request.context
        candidates = rules.candidates(logged.request, known)
        scored = self._predictor(logged.scores.model_version)(replace(bare, candidates=candidates))
        own = self._compiled(logged.versions.get("rules", logged.candidates.rules_version), logged.scores.model_version).rules
        decision = self._decision(logged, candidates, scored.scores, own, policy)
        return replace(scored, decision=decision)

    def _decision(self, logged: Envelope, candidates: Candidates, scores: Scores | None, rules: Rules, policy: Policy) -> Decision:
        assert logged.decision is not None  # noqa: S101 (again has looked)
        if logged.decision.reason in ANSWERED_WITHOUT:
            return no_promo(logged.request, logged.decision.reason, policy)
        left = arms_of(logged.request, candidates, scores, rules, policy)
        if isinstance(left, Decision):
            return left
        return choose(logged.request, left, Standing(logged.decision.refused, logged.decision.prices), rules, policy)

    def _predictor(self, version: str) -> Predictor:
        if version not in self._predictors:
            self._predictors[version] = Predictor(kept(self._folder, "models", version))
        return self._predictors[version]

    def _compiled(self, rules_version: str, version: str) -> CompiledRules:
        if (rules_version, version) not in self._rules:
            manifest = load_manifest(kept(self._folder, "models", version))
            path = kept(self._folder, "rules", f"{rules_version}.yaml")
            self._rules[rules_version, version] = CompiledRules(load_rules(path, manifest.promos, manifest.vocabularies))
        return self._rules[rules_version, version]

    def _policy(self, version: str) -> Policy:
        if version not in self._policies:
            self._policies[version] = policy_named(self._folder, version, self._salt)
        return self._policies[version]


def _choice(decision: Decision | None) -> Decision | None:
    """Without what only the moment decides: the end of the reservation and the key, and the id of an answer without the ledger."""
    return decision and replace(
        decision, decision_id="", reserved_cents=0, reservation_id=None, budget=None, expires_at=None, key_id=None
    )  # fmt: skip


def _of_transformer(logged: Envelope) -> tuple[Any, ...]:
    """What the first box found to be not as it should be: the later boxes find theirs again."""
    own = ("stale_features", "expired_features", "no_features", "features_unavailable")
    return tuple(code for code in logged.degraded if code in own)
