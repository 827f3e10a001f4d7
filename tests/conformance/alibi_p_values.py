"""Runs in alibi-detect's own environment: pairs of samples (npz files) -> its p-values of the same tests, one JSON line a pair."""

import json
import sys

import numpy as np
from alibi_detect.cd import ChiSquareDrift, CVMDrift, KSDrift, TabularDrift

for path in sys.argv[1:]:
    samples = np.load(path)
    reference, rows = samples["reference"], samples["rows"]
    one, other = samples["reference_codes"], samples["rows_codes"]
    mixed = [np.column_stack([numbers, codes]) for numbers, codes in ((reference, one), (rows, other))]
    found = {
        "kolmogorov_smirnov": KSDrift(reference).predict(rows, drift_type="feature"),
        "cramer_von_mises": CVMDrift(reference).predict(rows, drift_type="feature"),
        "chi_square": ChiSquareDrift(one[:, None]).predict(other[:, None], drift_type="feature"),
        "tabular": TabularDrift(mixed[0], categories_per_feature={reference.shape[1]: None}).predict(mixed[1], drift_type="feature"),
    }
    print(json.dumps({name: np.asarray(answer["data"]["p_val"]).tolist() for name, answer in found.items()}))
