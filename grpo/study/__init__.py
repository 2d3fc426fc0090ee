"""Reward ablation studies: runs that differ in their rewards, measured alike. Its CLI is imported with `grpo.cli`, so
nothing else is imported here."""
