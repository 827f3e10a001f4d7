"""Uplift science on numpy arrays: scores, curves, policy value, bootstrap and the gate."""
