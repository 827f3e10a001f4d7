"""A seed -> a small file in Hillstrom's layout: the women's e-mail brings visits to women's customers only."""

import csv
from pathlib import Path

import numpy as np


def write_hillstrom(path: Path, rows: int = 6000, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    arms = np.array(["No E-Mail", "Mens E-Mail", "Womens E-Mail"])[rng.integers(0, 3, rows)]
    womens = rng.integers(0, 2, rows)
    visit = (rng.random(rows) < 0.1 + 0.5 * (womens == 1) * (arms == "Womens E-Mail")).astype(int)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        names = "recency history_segment history mens womens zip_code newbie channel segment visit conversion spend"
        table.writerow(names.split())
        for i in range(rows):
            area, channel = ("Urban", "Rural")[i % 2], ("Web", "Phone")[i // 2 % 2]
            history = [1 + i % 12, "1) $0 - $100", 50.5, 1 - womens[i], womens[i], area, i % 2, channel]
            table.writerow([*history, arms[i], visit[i], 0, 0.0])
    return path
