"""Promolift's shared library: contracts, uplift science, decision policy, and the simulated experiment."""
