"""Held-out evaluation, its statistics, and the commands `eval` and `steps`."""
