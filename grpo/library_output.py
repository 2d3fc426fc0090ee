"""Imported before transformers: its warnings about the tiny policy, its download bars, and what notebooks lack to draw
them tell our users nothing. Variables that are set already stay.
"""

import logging
import os
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm
logging.getLogger("ray.widgets").setLevel(logging.WARNING)  # "Missing packages: ['ipywidgets']"
