"""Manifests rendered, checked and brought to a cluster."""
