"""`alibi_p_values.py NUMBERS TEXTS JOINT FILE...` in the environment of alibi-detect: pairs of samples (npz) -> p-values, a line each.

The tests are named as the detector names them; `joint` compares the numbers as they are.
"""

import json
import sys

import numpy as np

from serving.detector.tests_by_name import chosen_tests
from tests.promolift.drift_world import independent_rows, p_values

tests = chosen_tests(*sys.argv[1:4])
for path in sys.argv[4:]:
    samples = np.load(path)
    sides = [(samples[name], samples[f"{name}_codes"]) for name in ("reference", "rows")]
    found = p_values(*(independent_rows(*side, 10_000 * place) for place, side in enumerate(sides)), tests)
    joint = tests.joint(samples["reference"][:500], samples["rows"][:500], 1) if tests.joint else None
    print(json.dumps({"columns": found, "joint": joint}))
