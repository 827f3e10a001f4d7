"""Runs in alibi-detect's own environment: pairs of samples (npz files) -> its p-values of the tests that we have too, a line a pair."""

import json
import sys

import numpy as np
from alibi_detect.cd import ChiSquareDrift, CVMDrift

for path in sys.argv[1:]:
    samples = np.load(path)
    one, other = (samples[name][:, None] for name in ("reference_codes", "rows_codes"))
    numbers = CVMDrift(samples["reference"]).predict(samples["rows"], drift_type="feature")
    texts = ChiSquareDrift(one).predict(other, drift_type="feature")
    print(json.dumps({"numbers": np.asarray(numbers["data"]["p_val"]).tolist(), "text": float(texts["data"]["p_val"][0])}))
