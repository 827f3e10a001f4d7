"""`python -m tests.pipelines.trial FOLDER`: a small experiment with a known effect, for tests that need a run from end to end."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 5_000
YAML = """
file: trial.parquet
arm: offer
value: spend
features: [age, income, city]
cost: {discount: 2.0, gift: 0.5}
shopper: customer
segments: [city]
budget: 1.0
"""


def trial(folder: Path) -> Path:
    """A discount is worth 12 to people under 40 and costs them who are older; the gift does nothing. Some incomes are missing."""
    rng = np.random.default_rng(11)
    age, offer = rng.integers(18, 80, ROWS), rng.choice(["control", "discount", "gift"], ROWS)
    effect = np.where(offer == "discount", np.where(age < 40, 12.0, -4.0), 0.0)
    income = rng.lognormal(3, 1, ROWS)
    income[rng.random(ROWS) < 0.1] = np.nan
    spend = np.round(np.maximum(0, rng.normal(20 + np.nan_to_num(income) / 10 + effect, 8)), 2)
    columns = {"customer": [f"c{i}" for i in range(ROWS)], "offer": offer, "spend": spend, "age": age, "income": income}
    frame = pd.DataFrame({**columns, "city": rng.choice(["Bern", "Genf"], ROWS)})
    frame.to_parquet(folder / "trial.parquet")
    (folder / "trial.yaml").write_text(YAML)
    return folder / "trial.yaml"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    print(trial(place))
