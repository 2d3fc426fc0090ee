"""BLIP3-o: latent queries read by Qwen2.5-VL, and a Lumina Next-DiT that makes image features of them."""
