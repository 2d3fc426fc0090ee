"""Judges: vision-language models behind OpenAI-compatible servers, asked questions about images."""
