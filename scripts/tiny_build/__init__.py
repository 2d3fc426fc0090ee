"""Stages of `scripts/build_tiny_policy.py`."""
