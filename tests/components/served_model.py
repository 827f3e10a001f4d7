"""A model folder and rows -> what the served file answers, for tests of training."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.examples_input import Batch
from components.export_model import interpreter_of
from promolift.contracts.features import ATTRIBUTE_NAMES, NUMERIC_NAMES


def random_batch(rows: int, seed: int) -> Batch:
    """Rows that no model was trained on: wide ranges, zeros, unknown attributes."""
    rng = np.random.default_rng(seed)
    numeric = rng.lognormal(1, 3, (rows, len(NUMERIC_NAMES))) * rng.integers(0, 2, (rows, len(NUMERIC_NAMES)))
    attributes = rng.integers(0, 4, (rows, len(ATTRIBUTE_NAMES)))
    texts, none = np.array([""] * rows), np.zeros(rows, np.int32)
    blank = np.zeros((rows, 3), np.float32)
    return Batch(texts, texts, texts, numeric.astype(np.float32), attributes.astype(np.int32), none, blank.astype(np.float64), blank)


def served(folder: Path, batch: Batch) -> dict[str, NDArray[Any]]:
    """`value` and `cost` [n, P] from model.tflite."""
    run = interpreter_of((folder / "model.tflite").read_bytes())
    answers = [run(numeric=batch.numeric[i : i + 1], attributes=batch.attributes[i : i + 1]) for i in range(len(batch.arm))]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in ("value", "cost")}


def operations(content: bytes) -> set[str]:
    """Names of the operations in a flat buffer."""
    from ai_edge_litert.interpreter import Interpreter

    return {op["op_name"] for op in Interpreter(model_content=content)._get_ops_details()}
