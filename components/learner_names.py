"""Names of all learners, light to import: what a command may be asked for, checked before anything starts."""

from promolift.contracts.artifacts import CANDIDATES
from promolift.errors import InputError

NETWORKS: dict[str, str] = {"tarnet": "tarnet", "dragonnet": "dragonnet", "euen": "euen", "s_net": "s", "t_net": "t"}
"""Name of a candidate -> structure of the effect network (effect_config)."""
LEARNERS: tuple[str, ...] = ("lightgbm", "response", "x_learner", "dr_learner", "causal_forest", *NETWORKS)
"""Every candidate that train_baselines can train; uplift_net has a stage of its own."""


def names_of(learners: str) -> tuple[str, ...]:
    """Those of LEARNERS that every run trains, then the named ones (commas between), each once. Raises InputError for another name."""
    asked = [name.strip() for name in learners.split(",") if name.strip()]
    unknown = sorted(set(asked) - {*LEARNERS, *CANDIDATES})
    if unknown:
        raise InputError(f"There is no learner '{unknown[0]}'; choose from {', '.join(LEARNERS)}, with commas between.")
    always = (name for name in CANDIDATES if name in LEARNERS)
    return tuple(dict.fromkeys((*always, *(name for name in asked if name in LEARNERS))))
