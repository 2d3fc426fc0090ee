"""Imported before transformers: its warnings about the tiny policy's configuration and its download bars tell our users
nothing. Variables that are set already stay.
"""

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
