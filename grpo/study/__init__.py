"""Reward ablation studies: runs that differ in their rewards, measured alike. Its CLI is imported with `cli`, so
nothing else is imported here."""
