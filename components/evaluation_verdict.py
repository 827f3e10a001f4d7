"""Effects of all candidates -> one sentence that says which of them earns most, and from which the data can tell it."""

from promolift.uplift.effects import CHAMPION, Effects
from promolift.uplift.gate import WITHOUT_MODEL

SIMPLE = ("lightgbm", "response", *WITHOUT_MODEL)
"""What needs no network; when one of these wins, the sentence says so."""


def winner(effects: Effects) -> str:
    """Who earns most at the budget on the test decisions, and whom it is shown to beat: 95 % intervals of paired differences."""
    names = [name for name in (*effects.models, *WITHOUT_MODEL) if name != CHAMPION]
    best = max(names, key=lambda name: effects.profit(name).value)
    rivals = [name for name in names if name != best]
    beaten = [name for name in rivals if effects.profit(best).minus(effects.profit(name)).interval()[0] > 0]
    open_ = [name for name in rivals if name not in beaten]
    simple = ", the simple choice" if best in SIMPLE else ""
    shown = f"it is shown to earn more than {_listed(beaten)}" if beaten else "it is not shown to earn more than any other"
    doubt = f"; the data cannot tell it from {_listed(open_)}" if beaten and open_ else ""
    return f"At the budget {best}{simple} earns most, {effects.profit(best).value:.4g} per decision: {shown}{doubt}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
