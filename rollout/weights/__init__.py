"""How a step's weights reach samplers and decoders."""
