"""GRPO for image tokens: the trainer on TRL's, the run's driver, held-out evaluation, and the command line."""
