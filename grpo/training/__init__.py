"""What one rank does: the trainer on TRL's, its guards, sharding, LoRA and averages."""
