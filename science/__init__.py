"""Worlds with known truth -> how often the gate and its intervals are right; imports promolift only."""
