"""Rewards behind HTTP: the client, which is a reward, and the server for any reward."""
