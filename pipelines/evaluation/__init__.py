"""Measuring candidates on held-out examples."""
