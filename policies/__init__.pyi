from .blip3o.policy import BLIP3o as BLIP3o
from .blip3o_next.config import ImageTokens as ImageTokens
from .blip3o_next.config import image_tokens as image_tokens
from .blip3o_next.config import load_config as load_config
from .blip3o_next.config import resolve_policy_path as resolve_policy_path
from .blip3o_next.headers import check_headers as check_headers
from .blip3o_next.headers import image_side as image_side
from .blip3o_next.json_files import CheckpointError as CheckpointError
from .blip3o_next.logprobs import image_logprobs as image_logprobs
from .blip3o_next.logprobs import position_ids as position_ids
from .blip3o_next.policy import BLIP3oNext as BLIP3oNext
from .blip3o_next.prompt_encoder import PromptEncoder as PromptEncoder
from .blip3o_next.prompt_encoder import PromptError as PromptError
from .blip3o_next.vision import VQSigLIP2 as VQSigLIP2
from .tiny_world.architecture import random_policy as random_policy

__all__ = [
    "BLIP3o",
    "BLIP3oNext",
    "CheckpointError",
    "ImageTokens",
    "PromptEncoder",
    "PromptError",
    "VQSigLIP2",
    "check_headers",
    "image_logprobs",
    "image_side",
    "image_tokens",
    "load_config",
    "position_ids",
    "random_policy",
    "resolve_policy_path",
]
