"""`blip3o-grpo warmstart`: train a policy on images and captions, before any reward is involved.

Names are imported when first used: what a mistake in a file needs, needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
