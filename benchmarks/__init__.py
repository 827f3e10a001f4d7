"""Measurements: `python -m benchmarks.run` prints ratios of one run and writes them as JSON."""
