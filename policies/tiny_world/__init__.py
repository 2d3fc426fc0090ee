"""The tiny world: its pictures, its policy's shapes, and how well a policy has learnt it."""
