"""`python -m benchmarks.dragonnet_throughput`: training rows a second of our DragonNet and of causalml's on one synthetic table, as JSON.

Both train on the CPU with the same table, widths, batch, epochs, Adam rate, l2, targeted regularisation and validation share, each in a
process of its own, the two in turn within one call. A row counts once per epoch that was truly done (causalml may stop early).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from components.effect_config import EffectConfig
from components.effect_training import Trainer

Table = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
Fit = Callable[[int], int]
"""epochs asked for -> epochs done, over the train rows."""


@dataclass(frozen=True)
class Size:
    """What both sides are given. `width` of the three trunk layers; heads have two layers of half of it, as in causalml."""

    rows: int = 20_000
    columns: int = 25
    width: int = 200
    batch: int = 64
    epochs: int = 12
    validation_share: float = 0.2

    @property
    def train_rows(self) -> int:
        """Rows of an epoch."""
        return self.rows - round(self.rows * self.validation_share)


def table(size: Size) -> Table:
    """Inputs x [n, d] standard normal, arm [n] with a confounded share, outcome [n] with an effect that differs by row."""
    generator = np.random.default_rng(7)
    x = generator.normal(size=(size.rows, size.columns))
    arm = (generator.random(size.rows) < 1 / (1 + np.exp(-0.5 * x[:, 0]))).astype(np.int64)
    outcome = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + arm * (1 + x[:, 3]) + 0.5 * generator.normal(size=size.rows)
    return x, arm, outcome


def ours(size: Size) -> Fit:
    """Our structure dragonnet; the network and its compiled epoch are made by the first fit and used again by the next ones."""
    x, arm, outcome = table(size)
    kept: dict[int, Trainer] = {}

    def fit(epochs: int) -> int:
        if epochs not in kept:
            kept[epochs] = Trainer(_config(size, epochs), size.columns, 2)
        return len(kept[epochs].fit(x, arm, outcome, seed=1).history)

    return fit


def _config(size: Size, epochs: int) -> EffectConfig:
    return EffectConfig(
        structure="dragonnet", trunk=(size.width,) * 3, head=(size.width // 2,) * 2, l2_head=0.01, learning_rate=1e-3,
        epochs=epochs, patience=epochs, batch_rows=size.batch, validation_share=size.validation_share,
    )  # fmt: skip


def causalml(size: Size) -> Fit:
    """causalml.inference.tf.DragonNet in its Adam phase. It builds and traces its network anew in every fit."""
    from causalml.inference.tf import DragonNet  # noqa: PLC0415 (takes seconds)

    x, arm, outcome = (values.astype(np.float32) for values in table(size))
    done: list[int] = []

    class Counted(DragonNet):  # type: ignore[misc]
        """Notes how many epochs each call of Keras' fit did."""

        def make_dragonnet(self, input_dim: int) -> Any:
            model = super().make_dragonnet(input_dim)
            train = model.fit

            def counted(*values: Any, **options: Any) -> Any:
                history = train(*values, **options)
                done.append(len(history.epoch))
                return history

            model.fit = counted
            return model

    def fit(epochs: int) -> int:
        done.clear()
        net = Counted(
            neurons_per_layer=size.width, val_split=size.validation_share, batch_size=size.batch, reg_l2=0.01, use_adam=True,
            adam_epochs=epochs, adam_learning_rate=1e-3, epochs=0, verbose=False,
        )  # fmt: skip
        net.fit(x, arm, outcome)
        return sum(done)

    return fit


SIDES: Mapping[str, Callable[[Size], Fit]] = {"ours": ours, "causalml": causalml}


def timed(fit: Fit, size: Size) -> dict[str, float]:
    """Rows a second of the first fit, of a second one in the same process, and of an epoch beyond the first (start-up cancelled)."""
    found: dict[str, float] = {}
    seconds, epochs = {}, {}
    for name, asked in (("cold", size.epochs), ("warm", size.epochs), ("cold one", 1), ("one", 1)):
        start = time.perf_counter()
        epochs[name] = fit(asked)
        seconds[name] = time.perf_counter() - start
    for name in ("cold", "warm"):
        found[f"{name}_rows_per_second"] = size.train_rows * epochs[name] / seconds[name]
        found[f"{name}_epochs"] = epochs[name]
    found["steady_rows_per_second"] = size.train_rows * (epochs["warm"] - epochs["one"]) / (seconds["warm"] - seconds["one"])
    return found


def measure(size: Size | None = None, rounds: int = 1) -> dict[str, Any]:
    """Both sides in turn, `rounds` times: medians of rows a second, ratios of ours to theirs round by round (median, least)."""
    size = size or Size()
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            found[side].append(_in_own_process(side, size))
    speeds = [name for name in found["ours"][0] if name.endswith("per_second")]
    ratios = {name: [a[name] / b[name] for a, b in zip(found["ours"], found["causalml"], strict=True)] for name in speeds}
    return {
        "size": asdict(size), "cpus": os.cpu_count(), "rounds": rounds,
        **{side: {name: round(median(row[name] for row in rows)) for name in rows[0]} for side, rows in found.items()},
        "ratio": {name.replace("_rows_per_second", ""): round(median(v), 2) for name, v in ratios.items()},
        "least_ratio": {name.replace("_rows_per_second", ""): round(min(v), 2) for name, v in ratios.items()},
    }  # fmt: skip


def _in_own_process(side: str, size: Size) -> dict[str, float]:
    """Without our choice of Keras 2 and without a GPU, so that each library loads what it loads by itself."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    command = [sys.executable, "-m", "benchmarks.dragonnet_throughput", "--side", side, "--size", json.dumps(asdict(size))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The measurement of {side} ended with status {done.returncode}: {done.stderr[-2_000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> int:
    """Print the figures; `--side` measures one side in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dragonnet_throughput", description=__doc__)
    parser.add_argument("--side", choices=tuple(SIDES), help="measure this side only, in this process")
    parser.add_argument("--size", type=json.loads, default={}, help="JSON of sizes that differ from the defaults")
    parser.add_argument("--rounds", type=int, default=1, help="how often to measure both (default: 1)")
    options = parser.parse_args()
    size = Size(**options.size)
    print(json.dumps(timed(SIDES[options.side](size), size) if options.side else measure(size, options.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
