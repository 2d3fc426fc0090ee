"""LongText-Bench: long texts to be written into an image, read by a vision-language model."""
