"""Feast views built from the contracts."""
