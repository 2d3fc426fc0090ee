"""Rollouts: prompts to token groups to images to scores, each stage a pool of Ray actors.

Names are imported when first used, so a reward worker in another environment needs neither vLLM nor torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
