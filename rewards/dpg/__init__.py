"""DPG-Bench: dense prompts, judged by yes/no questions that depend on each other."""
