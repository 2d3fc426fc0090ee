"""WISE: prompts that need knowledge of the world, judged by a vision-language model."""
