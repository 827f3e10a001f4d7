"""Choices of a person -> EffectConfig, the one description from which components.effect_net builds any of its five structures.

tarnet     one trunk, a head per arm (Shalit, Johansson and Sontag, ICML 2017)
dragonnet  tarnet, a propensity head on the trunk and targeted regularisation (Shi, Blei and Veitch, NeurIPS 2019)
euen       a control network and an effect network, mu_k = mu_0 + tau_k; treated rows also teach mu_0 (Ke et al., ICDM 2021)
s          one network with the arm among its inputs (S-learner)
t          one network per arm, nothing shared (T-learner)
"""

from dataclasses import dataclass

from promolift.errors import InputError

STRUCTURES = ("tarnet", "dragonnet", "euen", "s", "t")
OUTCOMES = ("continuous", "binary", "ziln")


@dataclass(frozen=True)
class EffectConfig:
    """Structure, sizes and rates. Raises InputError when a value cannot be used.

    `l2_trunk` and `l2_head` multiply the sum of squared weights. `decay` multiplies the learning rate after each epoch. Training stops
    when the validation loss has not fallen for `patience` epochs. `balanced` weighs every arm equally, whatever its share of the rows.
    With `averaged` a the network is a moving average of the weights: each epoch adds 1 - a of its own (Polyak and Juditsky, 1992).
    `propensity_weight`, `targeted` and `targeted_weight` are read by dragonnet only.
    Outcome `ziln` is an amount of at least 0: zero-inflated lognormal.
    """

    structure: str = "tarnet"
    outcome: str = "continuous"
    trunk: tuple[int, ...] = (200, 200, 200)
    head: tuple[int, ...] = (100, 100)
    dropout: float = 0.0
    l2_trunk: float = 0.0
    l2_head: float = 1e-4
    learning_rate: float = 1e-3
    decay: float = 1.0
    epochs: int = 300
    patience: int = 40
    batch_rows: int = 100
    validation_share: float = 0.3
    averaged: float = 0.0
    balanced: bool = False
    propensity_weight: float = 1.0
    targeted: bool = True
    targeted_weight: float = 1.0

    def __post_init__(self) -> None:
        self._check_words()
        for name in ("epochs", "patience", "batch_rows"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("l2_trunk", "l2_head", "propensity_weight", "targeted_weight"):
            _require(0 <= getattr(self, name) < float("inf"), name, getattr(self, name), "0 or more and finite")
        for name in ("dropout", "averaged"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        _require(0 < self.validation_share < 1, "validation_share", self.validation_share, "between 0 and 1")
        _require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "above 0 and finite")
        _require(0 < self.decay <= 1, "decay", self.decay, "in (0, 1]")

    def _check_words(self) -> None:
        _require(self.structure in STRUCTURES, "structure", self.structure, f"one of {', '.join(STRUCTURES)}")
        _require(self.outcome in OUTCOMES, "outcome", self.outcome, f"one of {', '.join(OUTCOMES)}")
        for name in ("trunk", "head"):
            widths = getattr(self, name)
            _require(len(widths) > 0 and min(widths) >= 1, name, widths, "one or more widths of at least 1")
        if self.is_targeted and self.outcome == "ziln":
            raise InputError(
                "Targeted regularisation squares the error of the mean, which a long-tailed amount spoils: set targeted=False."
            )

    @property
    def is_targeted(self) -> bool:
        """Whether the targeted term is part of the loss."""
        return self.structure == "dragonnet" and self.targeted

    @property
    def units(self) -> int:
        """Numbers that a head gives for a row: 3 for ziln (logit, location, spread), else 1."""
        return 3 if self.outcome == "ziln" else 1


def _require(good: bool, name: str, value: object, rule: str) -> None:
    if not good:
        raise InputError(f"{name} is {value!r} but must be {rule}.")
