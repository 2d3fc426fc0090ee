"""The run folder: its files, locks, checkpoints, metrics and signals."""
