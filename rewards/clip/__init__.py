"""CLIP through open_clip: the encoder, and CLIP score as a reward."""
