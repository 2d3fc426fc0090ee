"""The actors of a run: samplers, decoders, reward workers."""
