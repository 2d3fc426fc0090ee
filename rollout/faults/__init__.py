"""Calls that may be lost: who is busy with what, how often it is repeated, what failed."""
