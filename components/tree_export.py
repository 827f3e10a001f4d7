"""Trees of boosters or forests -> one TensorFlow function that walks all of them at once (built-in TFLite operations only).

Every tree is padded to a perfect one of the same depth: node i of a level has children 2i and 2i + 1 of the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError

Tensor = Any
Tree = dict[str, Any]
_NEVER = np.float32(np.inf)


@dataclass(frozen=True)
class Forest:
    """T trees of depth D of G owners, such as boosters.

    `feature`, `threshold`: D arrays [T, 2^level]. `leaf` [T, 2^D]. `owner` [T, G] is 1 for the owner that a tree belongs to.
    """

    feature: tuple[NDArray[np.int32], ...]
    threshold: tuple[NDArray[np.float32], ...]
    leaf: NDArray[np.float32]
    owner: NDArray[np.float32]


def forest_of(boosters: Sequence[Any]) -> Forest:
    """Trees of the boosters. Raises InputError for a categorical split or missing-value rule, which `x <= threshold` cannot say."""
    return packed([[info["tree_structure"] for info in booster.dump_model()["tree_info"]] for booster in boosters])


def packed(owners: Sequence[Sequence[Tree]]) -> Forest:
    """Each owner's trees, in the form of LightGBM's `dump_model`. Raises InputError as `forest_of` does."""
    trees = [(number, tree) for number, own in enumerate(owners) for tree in own]
    depth = max(_depth(tree) for _, tree in trees)
    levels = [_level(trees, d) for d in range(depth)]
    owner = np.zeros((len(trees), len(owners)), np.float32)
    owner[np.arange(len(trees)), [number for number, _ in trees]] = 1
    leaf = np.array([_leaves(tree, depth) for _, tree in trees], np.float32)
    return Forest(tuple(f for f, _ in levels), tuple(t for _, t in levels), leaf, owner)


def _depth(node: Tree) -> int:
    return 0 if "leaf_value" in node else 1 + max(_depth(node["left_child"]), _depth(node["right_child"]))


def _nodes(tree: Tree, level: int) -> list[Tree]:
    """The 2^level nodes of one level; a leaf above stands for all nodes below it."""
    nodes = [tree]
    for _ in range(level):
        nodes = [child for node in nodes for child in (node.get("left_child", node), node.get("right_child", node))]
    return nodes


def _leaves(tree: Tree, depth: int) -> list[float]:
    return [node["leaf_value"] for node in _nodes(tree, depth)]


def _level(trees: Sequence[tuple[int, Tree]], level: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    splits = [[_split(node) for node in _nodes(tree, level)] for _, tree in trees]
    feature = np.array([[f for f, _ in row] for row in splits], np.int32)
    return feature, np.array([[t for _, t in row] for row in splits], np.float32)


def _split(node: Tree) -> tuple[int, np.float32]:
    if "leaf_value" in node:
        return 0, _NEVER
    if node["decision_type"] != "<=" or node["missing_type"] != "None":
        kind = f"{node['decision_type']} with missing_type {node['missing_type']}"
        raise InputError(f"A tree splits by '{kind}'; train with use_missing=False and numeric columns only.")
    return node["split_feature"], _below(node["threshold"])


def _below(threshold: float) -> np.float32:
    """Largest float32 that is not above the threshold: float32 x <= threshold exactly when x <= this."""
    near = np.float32(threshold)
    return np.nextafter(near, np.float32(-np.inf)) if float(near) > threshold else near


def walk(forest: Forest, rows: Tensor) -> Tensor:
    """Raw sums of each owner's trees: rows [R, F] float32 -> [R, G]."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    trees = len(forest.leaf)
    node = tf.zeros([rows.shape[0], trees], tf.int32)
    for level, (feature, threshold) in enumerate(zip(forest.feature, forest.threshold, strict=True)):
        place = node + tf.constant(np.arange(trees, dtype=np.int32) * 2**level)
        value = tf.gather(rows, tf.gather(tf.constant(feature.ravel()), place), batch_dims=1)
        right = value > tf.gather(tf.constant(threshold.ravel()), place)
        node = 2 * node + tf.cast(right, tf.int32)
    place = node + tf.constant(np.arange(trees, dtype=np.int32) * forest.leaf.shape[1])
    return tf.matmul(tf.gather(tf.constant(forest.leaf.ravel()), place), tf.constant(forest.owner))


def wide_row(numeric: Tensor, attributes: Tensor) -> Tensor:
    """[1, N] and [1, A] -> [1, N + A] float32, the columns the boosters were trained on."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    return tf.concat([numeric, tf.cast(attributes, tf.float32)], axis=1)


def with_arms(row: Tensor, arms: NDArray[np.int64]) -> Tensor:
    """[1, F] -> [P, F + 1]: the row once for each arm, the arm's number last."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    return tf.concat([tf.tile(row, [len(arms), 1]), tf.constant(arms[:, None].astype(np.float32))], axis=1)


def link(sums: Tensor, objective: str) -> Tensor:
    """Raw sums -> predictions of a booster of that LightGBM objective (`binary` or `regression`)."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    return tf.sigmoid(sums) if objective == "binary" else sums


def positive(values: Tensor) -> Tensor:
    """A cost is never below 0."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    return tf.maximum(values, 0.0)
