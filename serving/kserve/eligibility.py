"""Envelope with a shopper -> envelope with the candidates that the rules allow; with none, a complete no_promo draft."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import yaml

from promolift.contracts.decisions import Envelope
from promolift.contracts.promos import Promo
from promolift.errors import InputError
from promolift.policy.constraints import Policy, forced
from promolift.policy.eligibility import eligible
from promolift.policy.rules import Rules, read_rules
from serving.kserve.stamp import stamped


class Eligibility:
    """The second box. `policy` only tells a draft's bucket (holdout or not)."""

    name = "eligibility"

    def __init__(self, rules: Rules, policy: Policy) -> None:
        self._rules = rules
        self._policy = policy

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with `candidates`, and with `decision` when there is none to choose from."""
        started = perf_counter()
        candidates = eligible(envelope.request, self._rules)
        draft = None if candidates.promo_ids else forced(envelope.request, candidates, None, self._policy)
        return stamped(envelope, self.name, self._rules.version, started, candidates=candidates, decision=draft)


def load_rules(path: Path, promos: Sequence[Promo]) -> Rules:
    """The rules of a YAML file for a catalogue. Raises InputError that names the file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"Rules file {path} cannot be read ({problem.strerror}); name an existing file with --rules.") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise InputError(f"Rules file {path} is not YAML: {' '.join(str(problem).split())}.") from problem
    return read_rules(document, promos, str(path))
