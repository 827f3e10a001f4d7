"""Batches of gold/examples -> a tf.data pipeline: shuffled within a buffer, the same for the same seed and epoch, prefetched."""

from typing import Any

from components.examples_input import Examples, Vocabularies, batches
from promolift.contracts.features import FeatureSet

LABELS = 3


def batch_specs(arms: int, features: FeatureSet) -> dict[str, Any]:
    """Signature of one training batch of B rows; `propensities` are in the order of SourceCard.arms."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    return {
        "numeric": tf.TensorSpec([None, len(features.numeric)], tf.float32),
        "attributes": tf.TensorSpec([None, len(features.attributes)], tf.int32),
        "arm": tf.TensorSpec([None], tf.int32),
        "propensities": tf.TensorSpec([None, arms], tf.float32),
        "labels": tf.TensorSpec([None, LABELS], tf.float32),
    }


def dataset(examples: Examples, vocabulary: Vocabularies, split: str, rows: int, shuffle: tuple[int, int] | None = None) -> Any:
    """Batches of `rows` rows of one split; `shuffle` is (buffer rows, seed)."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    specs = batch_specs(len(examples.card.arms), examples.features)

    def read() -> Any:
        for batch in batches(examples, vocabulary, split):
            yield {name: getattr(batch, name) for name in specs}

    data = tf.data.Dataset.from_generator(read, output_signature=specs).unbatch()
    if shuffle:
        data = data.shuffle(shuffle[0], seed=shuffle[1], reshuffle_each_iteration=False)
    # Nothing is left to tune, and the thread that would do it keeps the end of many an epoch waiting for a whole second.
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return data.batch(rows).prefetch(2).with_options(untuned)
