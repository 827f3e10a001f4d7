"""Stages of a model version, the moves between them, and the share of shoppers that each stage gives it."""

from collections.abc import Mapping
from typing import Literal, get_args

Stage = Literal["candidate", "shadow", "canary_10", "canary_50", "champion", "retired", "rolled_back", "refused"]
STAGES: tuple[Stage, ...] = get_args(Stage)
MOVES: Mapping[Stage, tuple[Stage, ...]] = {
    "candidate": ("shadow", "refused"),
    "shadow": ("canary_10", "rolled_back", "refused"),
    "canary_10": ("canary_50", "rolled_back"),
    "canary_50": ("champion", "rolled_back"),
    "champion": ("retired", "rolled_back"),
    "retired": ("champion",),
    "rolled_back": (),
    "refused": (),
}
"""From each stage the next ones. `retired` was champion once, and becomes it again when its successor is rolled back."""
PATH: tuple[Stage, ...] = ("candidate", "shadow", "canary_10", "canary_50", "champion")
"""The way up."""
BUCKETS = 10_000
SHARE: Mapping[Stage, int] = {"canary_10": 1_000, "canary_50": 5_000}
"""Buckets, of BUCKETS, whose shoppers a stage gives to the candidate."""
LIVE: tuple[Stage, ...] = ("shadow", "canary_10", "canary_50")
"""Stages of a version on its way: one version at a time is in them."""


def next_stage(stage: Stage) -> Stage:
    """The next one on the way up. Raises ValueError for a stage that has none."""
    place = PATH.index(stage) if stage in PATH[:-1] else -1
    if place < 0:
        raise ValueError(f"Nothing follows the stage '{stage}'.")
    return PATH[place + 1]
