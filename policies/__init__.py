"""Policies: BLIP3o-NEXT in the released layout, BLIP3-o, their prompt formats, the tiny policies and their world.

The names of `__init__.pyi` load torch and diffusers only when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
