"""gold/examples -> models/uplift_net: trains the Keras model epoch by epoch, keeps a checkpoint of each, and resumes after a kill.

A GPU, when there is one, trains with bfloat16 where it has it; otherwise everything is float32 on the CPU.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.examples_input import Batch, Examples, Vocabularies, batches, open_examples, vocabularies
from components.export_model import SEEDS, Candidate, Scores, export, write_seed
from components.train_input import dataset
from components.uplift_model import LOSSES, NetConfig, NetSpec, load_layers
from promolift.errors import InputError

NAME = "uplift_net"
Report = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """Where training stands; saved beside each checkpoint. `history`: one dict of losses an epoch."""

    history: list[dict[str, float]]

    @property
    def best(self) -> int:
        """Epoch (from 1) with the best (least) validation value; 0 before the first."""
        losses = [row["validation"] for row in self.history]
        return 1 + losses.index(min(losses)) if losses else 0

    def finished(self, config: NetConfig) -> bool:
        """All epochs done, or none better for `patience` epochs."""
        return len(self.history) >= config.epochs or len(self.history) - self.best >= config.patience


def train(
    lake: str, out: str, seed: int, epochs: int | None = None, *, seeds: int = 1, config: NetConfig | None = None
) -> dict[str, Any]:  # fmt: skip
    """Train, export and describe the network. Returns rows, seconds, device, epochs and what was written.

    `epochs` limits the epochs. `seeds` above 1: also with the next seeds, scores only. `config`: what a search found, else the defaults.
    Raises InputError on examples that cannot be used.
    """
    start = time.perf_counter()
    if epochs is not None and epochs < 1:
        raise InputError(f"epochs is {epochs} but must be at least 1; leave it out for the default.")
    examples = open_examples(lake)
    vocabulary = vocabularies(examples)
    config = config or NetConfig()
    config = config if epochs is None else replace(config, epochs=epochs)
    device = prepare_device(seed)
    spec = NetSpec(examples.card, tuple(len(values) for values in vocabulary.values()), config)
    shutil.rmtree(Path(out) / SEEDS / NAME, ignore_errors=True)
    candidate, training, progress = _trained(examples, vocabulary, spec, seed, Path(out))
    written = export(candidate, examples, vocabulary, Path(out))
    shutil.rmtree(training.folder)
    for number in range(seed + 1, seed + seeds):
        prepare_device(number)
        again, other, _ = _trained(examples, vocabulary, spec, number, Path(out))
        write_seed(again, examples, vocabulary, Path(out))
        shutil.rmtree(other.folder)
    return {
        "device": device, "rows": training.rows, "epochs": len(progress.history), "best_epoch": progress.best,
        "history": progress.history, NAME: written, "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def searched(lake: str, folder: str, seed: int, budget: tuple[int, int, str]) -> NetConfig:
    """The configuration that a search finds within `budget`: trials, seconds, and where MLflow is ("" for nowhere)."""
    from components.search import Budget, search  # noqa: PLC0415 (Optuna takes seconds; only where asked for)
    from components.search_spaces import net_config  # noqa: PLC0415

    return net_config(search(lake, Path(folder), NAME, seed, Budget(*budget))["best"]["parameters"])


def _trained(
    examples: Examples, vocabulary: Vocabularies, spec: NetSpec, seed: int, out: Path
) -> tuple[Candidate, "Training", Progress]:  # fmt: skip
    """One network with its costs scaled."""
    training = Training(examples, vocabulary, spec, seed, out / "checkpoints" / NAME)
    progress = training.run()
    model = in_float32(training.model, spec)
    scale = cost_scale(candidate_of(model, seed), examples, vocabulary)
    return candidate_of(model, seed, scale), training, progress


def prepare_device(seed: int) -> str:
    """Seeds everything, makes operations deterministic, and chooses the number format. Returns the device in words."""
    load_layers()
    import tensorflow as tf  # noqa: PLC0415 (after Keras 2 was chosen)

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    # float16 would need loss scaling, which tfrs.Model does not do; bfloat16 has float32's range and Ampere or newer has it
    mixed = details.get("compute_capability", (0, 0)) >= (8, 0)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if mixed else "float32")
    return f"GPU {details.get('device_name', '')}, {'mixed bfloat16' if mixed else 'float32'}" if gpus else "CPU, float32"


class Training:
    """The loop over epochs of one model on one version of the examples; `folder` holds the checkpoints."""

    def __init__(self, examples: Examples, vocabulary: Vocabularies, spec: NetSpec, seed: int, folder: Path) -> None:
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        self.examples, self.vocabulary, self.config, self.seed, self.folder = examples, vocabulary, spec.config, seed, folder
        self.model, self.rows = _built(spec, examples, vocabulary)
        self._start_fresh_unless(_fingerprint(examples, spec, seed))
        checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
        # the best epoch is at most `patience` epochs old, so it is always among the kept ones
        self.manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=spec.config.patience + 1)
        self.checkpoint = checkpoint

    def _start_fresh_unless(self, fingerprint: str) -> None:
        """Checkpoints of other data, seed or settings are dropped."""
        mark = self.folder / "fingerprint"
        if not (mark.exists() and mark.read_text(encoding="utf-8") == fingerprint):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            mark.write_text(fingerprint, encoding="utf-8")

    def run(self, after_epoch: Report = lambda row: None) -> Progress:
        """Train until finished and load the best epoch's weights. `after_epoch` is called with the epoch's row once it is saved."""
        progress = self._resume()
        validation = dataset(self.examples, self.vocabulary, "validation", 8_192).cache()
        while not progress.finished(self.config):
            progress.history.append(self._epoch(len(progress.history) + 1, validation))
            self._save(progress)
            after_epoch(progress.history[-1])
        self.checkpoint.restore(str(self.folder / f"ckpt-{progress.best}")).expect_partial()
        return progress

    def _resume(self) -> Progress:
        saved = self.folder / "progress.json"
        if not (self.manager.latest_checkpoint and saved.exists()):
            return Progress([])
        progress = Progress(json.loads(saved.read_text(encoding="utf-8")))
        self.checkpoint.restore(str(self.folder / f"ckpt-{len(progress.history)}"))
        print(f"{NAME}: resumes after epoch {len(progress.history)}", flush=True)
        return progress

    def _epoch(self, number: int, validation: Any) -> dict[str, float]:
        start = time.perf_counter()
        shuffle = (self.config.shuffle_rows, self.seed * 1_000 + number)
        train = dataset(self.examples, self.vocabulary, "train", self.config.batch_rows, shuffle)
        fitted = self.model.fit(train, verbose=0).history
        judged = self.model.evaluate(validation, verbose=0, return_dict=True)
        row = {f"train_{name}": fitted[name][0] for name in LOSSES} | {name: judged[name] for name in LOSSES}
        row |= {"validation": judged["stopping"], "seconds": time.perf_counter() - start}
        losses = ", ".join(f"{name} {row['train_' + name]:.4f}/{row[name]:.4f}" for name in LOSSES)
        end = f"effect gain {row['validation']:.5f}, {row['seconds']:.1f} s"
        print(f"{NAME}: epoch {number}/{self.config.epochs} (train/validation) {losses}, {end}", flush=True)
        return {name: round(float(value), 6) for name, value in row.items()}

    def _save(self, progress: Progress) -> None:
        """The record follows the checkpoint by rename, so that after a kill between the two the epoch is only done again."""
        self.manager.save(checkpoint_number=len(progress.history))
        part = self.folder / "progress.part"
        part.write_text(json.dumps(progress.history), encoding="utf-8")
        part.replace(self.folder / "progress.json")


def _fingerprint(examples: Examples, spec: NetSpec, seed: int) -> str:
    parts = (examples.path, examples.version, examples.features.hash, examples.card, asdict(spec.config), seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _built(spec: NetSpec, examples: Examples, vocabulary: Vocabularies) -> tuple[Any, int]:
    """The compiled model, its normalisation adapted to the train split, its variables created; and the rows of the split."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    from components.uplift_net import UpliftNet  # noqa: PLC0415 (after load_layers)

    model = UpliftNet(spec)
    train = dataset(examples, vocabulary, "train", 8_192)
    model.normalisation.adapt(train.map(lambda batch: model.logarithms(batch["numeric"])))
    labels = np.concatenate([batch.labels for batch in batches(examples, vocabulary, "train")])
    rows = len(labels)
    steps = -(-rows // spec.config.batch_rows) * spec.config.epochs
    rate = tf.keras.optimizers.schedules.CosineDecay(spec.config.learning_rate, steps, alpha=0.02)
    model.compile(optimizer=tf.keras.optimizers.AdamW(rate, weight_decay=spec.config.weight_decay, clipnorm=5.0))
    model.score(tf.zeros([1, len(spec.logged)]), tf.zeros([1, len(spec.sizes)], tf.int32))
    model.start_at(labels)
    model.optimizer.build(model.trainable_variables)
    return model, rows


def in_float32(model: Any, spec: NetSpec) -> Any:
    """The model itself, or its twin without mixed precision: a served file computes in float32 wherever it was trained."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    from components.uplift_net import UpliftNet  # noqa: PLC0415 (after load_layers)

    if tf.keras.mixed_precision.global_policy().name == "float32":
        return model
    tf.keras.mixed_precision.set_global_policy("float32")
    twin = UpliftNet(spec)
    twin.normalisation.build([None, len(spec.logged)])
    twin.normalisation.set_weights(model.normalisation.get_weights())
    twin.normalisation.finalize_state()
    twin.score(tf.zeros([1, len(spec.logged)]), tf.zeros([1, len(spec.sizes)], tf.int32))
    for own, trained in zip(twin.trainable_variables, model.trainable_variables, strict=True):
        own.assign(trained)
    return twin


def cost_scale(candidate: Candidate, examples: Examples, vocabulary: Vocabularies) -> NDArray[np.float32]:
    """[P] observed over predicted cost of the validation rows that were given each promo; 1 where either is nothing.

    The epoch is chosen by the effect it explains. Costs need not be right by then, and a policy whose costs are predicted too low
    breaks its budget.
    """
    observed, predicted = np.zeros(len(examples.card.promos)), np.zeros(len(examples.card.promos))
    for batch in batches(examples, vocabulary, "validation"):
        rows = np.flatnonzero(batch.arm)
        given = batch.arm[rows] - 1
        np.add.at(observed, given, batch.labels[rows, 2])
        np.add.at(predicted, given, candidate.score(batch)[1][rows, given])
    known = (observed > 0) & (predicted > 0)
    return np.where(known, observed / np.where(known, predicted, 1.0), 1.0).astype(np.float32)


def candidate_of(model: Any, seed: int, scale: Any = 1.0) -> Candidate:
    """The trained model in the form that export takes, its costs multiplied by `scale` [P]."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    def scaled(numeric: Any, attributes: Any) -> dict[str, Any]:
        found = model.score(numeric, attributes)
        return {"value": found["value"], "cost": found["cost"] * scale}

    graph = tf.function(scaled, reduce_retracing=True)

    def score(batch: Batch) -> Scores:
        found = graph(tf.constant(batch.numeric), tf.constant(batch.attributes))
        return found["value"].numpy().astype("float64"), found["cost"].numpy().astype("float64")

    owner = tf.Module()
    owner.kept = list(model.variables)  # the variables alone: Keras would serialise every layer for nothing
    return Candidate(NAME, scaled, score, owner, seed)
