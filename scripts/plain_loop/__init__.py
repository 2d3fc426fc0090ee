"""A training step as a plain loop in one process does it: what `bench_step.py` compares ours with."""
