"""`blip3o-grpo warmstart`: train a policy on images and captions, before any reward is involved."""
