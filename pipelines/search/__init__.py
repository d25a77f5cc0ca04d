"""Hyper-parameter search: trials that take turns over one base, who goes on, and what people ask of them."""
