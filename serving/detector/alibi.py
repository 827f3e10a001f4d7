"""alibi-detect's tests under the names of a look's; installed in an environment and an image of their own (group `drift`; BSL 1.1).

They get what ours get: as many independent rows as the window is worth. Their detectors that answer after every row are not among them:
those promise a mean time between false alarms, for independent rows, and keep no window.
"""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promolift.drift.two_samples import ColumnTest, Floats, JointTest, Pair, equal_steps, permutation_p
from promolift.errors import InputError

PERMUTATIONS, PERMUTATIONS_OF_LSDD = 500, 10_000
"""MMD's take 17 ms each, and a gamma's tail tells the rest; the p-value of LSDD is their share, which must reach a look's limit."""
Detector = Callable[..., Any]


def need() -> None:
    """Raise InputError where alibi-detect is not installed."""
    if importlib.util.find_spec("alibi_detect") is None:
        raise InputError("alibi-detect is not installed here; it is in the image `drift`, and `make alibi` installs it in build/alibi.")


def _column(name: str) -> ColumnTest:
    def p_values(pair: Pair) -> Floats:
        made = _detector(name)
        return np.array([_of_column(made, *column) for column in zip(pair.training, pair.window, pair.worth, strict=True)])

    return p_values


def _of_column(detector: Detector, training: Floats, window: Floats, worth: float) -> float:
    """Both sides as bins [n, 1] of as many rows as the window is worth, at equal steps of their distributions."""
    if not training.any() or not window.any():
        return 1.0
    rows = max(round(2 * worth), 2)
    samples = (np.repeat(np.arange(len(counts)), equal_steps(counts, rows))[:, None] for counts in (training, window))
    return _told(detector, *(sample.astype(np.float32) for sample in samples))


def _mmd(training: Floats, window: Floats, seed: int) -> float:
    import tensorflow as tf  # noqa: PLC0415 (alibi-detect's)
    from alibi_detect.cd.tensorflow.mmd import MMDDriftTF  # noqa: PLC0415
    from alibi_detect.utils.tensorflow.distance import mmd2_from_kernel_matrix  # noqa: PLC0415

    tf.random.set_seed(seed)
    kernel = MMDDriftTF(training.astype(np.float32)).kernel_matrix(training.astype(np.float32), window.astype(np.float32))
    permuted = [float(mmd2_from_kernel_matrix(kernel, len(window), permute=True)) for _ in range(PERMUTATIONS)]
    return permutation_p(float(mmd2_from_kernel_matrix(kernel, len(window))), np.array(permuted))


def _lsdd(training: Floats, window: Floats, seed: int) -> float:
    np.random.seed(seed)  # alibi-detect draws from the global generator
    options = {"backend": "tensorflow", "n_permutations": PERMUTATIONS_OF_LSDD}
    found = _told(_detector("LSDDDrift"), training.astype(np.float32), window.astype(np.float32), **options)
    return max(found, 1 / (PERMUTATIONS_OF_LSDD + 1))  # 0 is what permutations cannot know


def _classifier(training: Floats, window: Floats, seed: int) -> float:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (in the environment of alibi-detect)
    from sklearn.preprocessing import PolynomialFeatures  # noqa: PLC0415

    squares = PolynomialFeatures(2, include_bias=False)
    training, window = squares.fit_transform(training), squares.transform(window)
    options = {"backend": "sklearn", "n_folds": 5, "seed": seed, "preds_type": "probs", "binarize_preds": False}
    made = _detector("ClassifierDrift")
    return _told(made, training.astype(np.float32), window.astype(np.float32), model=LogisticRegression(C=0.01, max_iter=300), **options)


def _detector(name: str) -> Detector:
    import alibi_detect.cd as detectors  # noqa: PLC0415 (takes seconds, and is not installed everywhere)

    found: Detector = getattr(detectors, name)
    return found


def _told(detector: Detector, training: NDArray[Any], window: NDArray[Any], **options: Any) -> float:
    found = detector(training, **options).predict(window)["data"]["p_val"]
    return float(np.asarray(found).reshape(-1)[0])


NUMBERS: Mapping[str, ColumnTest] = {"cvm": _column("CVMDrift"), "ks": _column("KSDrift")}
TEXTS: Mapping[str, ColumnTest] = {"chi2": _column("ChiSquareDrift")}
JOINT: Mapping[str, JointTest] = {
    "mmd": _mmd,
    "lsdd": _lsdd,
    "classifier": _classifier,
}
