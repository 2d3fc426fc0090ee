"""Typed run configurations: pydantic schema, YAML loader and recipes. Imports neither torch, vLLM nor Ray.

Names are imported when first used, so a reward worker in another environment needs no pydantic.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
