"""Which worker gets which cores, GPUs and node."""
