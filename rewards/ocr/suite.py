"""The suite `ocr`: is the quoted text in the picture?"""

from blip3o_grpo.rewards.suites import Suite

SUITE = Suite(reward="ocr", recipe="tiny_ocr.yaml", needs="the words to write in double quotes")
