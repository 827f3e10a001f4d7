"""Pipelines chain the stages; `run.py` runs them here or on a cluster."""
