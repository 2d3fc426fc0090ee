"""Draws a sign and asks a reward service for its score: `python ask.py http://127.0.0.1:8000`."""

import sys

import numpy as np
from PIL import Image, ImageDraw
from rich import print

from blip3o_grpo.rewards import RewardBatch
from blip3o_grpo.rewards.http.client import RemoteReward

image = Image.new("RGB", (192, 96), (30, 80, 200))
ImageDraw.Draw(image).text((96, 48), "TAXI", "white", font_size=48, anchor="mm")
batch = RewardBatch([np.asarray(image)], ['a blue sign that says "TAXI"'], [{}])
print(RemoteReward(sys.argv[1])(batch))
