"""The guard of the rest of the image: it compares with the starting policy's pictures."""
