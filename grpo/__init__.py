"""GRPO fine-tuning of BLIP3o-NEXT image generators: `import blip3o_grpo as bg` (docs/python.md).

The names of `__init__.pyi` are imported when first used: importing this package loads no torch, Ray or vLLM.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
