"""Names on a command line -> the tests that a look is made with: ours, or alibi-detect's where that is installed."""

from collections.abc import Mapping
from typing import TypeVar

from promolift.drift.two_samples import (
    ChosenTests,
    ColumnTest,
    JointTest,
    chi_square,
    cramer_von_mises,
    kolmogorov_smirnov,
    maximum_mean_discrepancy,
    wasserstein,
)
from promolift.errors import InputError
from serving.detector import alibi

ALIBI = "alibi:"
NUMBERS: Mapping[str, ColumnTest] = {"cvm": cramer_von_mises, "ks": kolmogorov_smirnov, "wasserstein": wasserstein}
TEXTS: Mapping[str, ColumnTest] = {"chi2": chi_square}
JOINT: Mapping[str, JointTest | None] = {"none": None, "mmd": maximum_mean_discrepancy}
Named = TypeVar("Named")


def known() -> dict[str, tuple[str, ...]]:
    """Every name by what it is a test of, the default first."""
    found = {"numbers": (NUMBERS, alibi.NUMBERS), "texts": (TEXTS, alibi.TEXTS), "joint": (JOINT, alibi.JOINT)}
    return {kind: (*ours, *(ALIBI + name for name in theirs)) for kind, (ours, theirs) in found.items()}


def chosen_tests(numbers: str = "cvm", texts: str = "chi2", joint: str = "none") -> ChosenTests:
    """The tests of these names. Raises InputError for an unknown one, and for one of alibi-detect where that is not installed."""
    return ChosenTests(
        _found("numbers", NUMBERS, alibi.NUMBERS, numbers),
        _found("texts", TEXTS, alibi.TEXTS, texts),
        _found("joint", JOINT, alibi.JOINT, joint),
    )


def _found(kind: str, ours: Mapping[str, Named], theirs: Mapping[str, Named], name: str) -> Named:
    if name in ours:
        return ours[name]
    if name not in known()[kind]:
        raise InputError(f"'{name}' is no test of {kind}; choose one of {', '.join(known()[kind])}.")
    alibi.need()
    return theirs[name.removeprefix(ALIBI)]
