"""Runs, the model registry and lineage."""
