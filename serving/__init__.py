"""The serving side. Never run a file in here as a script: use `python -m` from the root."""
