"""Reads `ta_tok.pth`, the file TA-Tok was published as: a pickle, so with `weights_only=True` and nothing else.

A released checkpoint that holds no `vision_tower` weights names this file in `mm_vision_tower`. The file is
`{"model": {"args": sizes, "sd": tensors}}`; `teacher.*`, the model TA-Tok was trained against, is left out as the
released code leaves it out.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import Qwen3Config

from blip3o_grpo.policies.blip3o_next.checkpoint import PREFIXES, released_name, shape_problems
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.vision import CARRIED, VQSigLIP2, released_tower

TEACHER = "teacher."


def named_file(folder: Path, config: Qwen3Config) -> Path | None:
    """The file that a checkpoint's `mm_vision_tower` names, relative to its folder, if it is here."""
    name = getattr(config, "mm_vision_tower", None)
    return folder / name if isinstance(name, str) and name and (folder / name).is_file() else None


def load_ta_tok(
    file: str | Path,
    *,
    tower: dict | None = None,
    num_codes: int | None = None,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device = "cpu",
) -> VQSigLIP2:
    """The tokenizer of `ta_tok.pth`, in evaluation mode.

    Args:
        file: the published file.
        tower: sizes, as `vision_tower_config` of a checkpoint gives them (default: the released ones, with those the
            file itself names).
        num_codes: size the codebook must have.
        dtype: of all parameters; None leaves each as it is stored.

    Raises:
        CheckpointError: no such file, one that holds more than tensors and plain values, or tensors that do not fit,
            listed.
    """
    file = Path(file)
    sizes, tensors = _read(file)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(TEACHER)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        regularizer = sizes["bottleneck"]["args"]["regularizer"]["args"]
        named = {
            "image_size": sizes.get("input_size", 384),
            "l2_normalized": regularizer.get("l2_normalized", False),
        }
        found = regularizer["codebook_size"]
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: names no sizes of a TA-Tok ({type(error).__name__}: {error})") from error
    if num_codes not in (None, found):
        raise CheckpointError(f"{file}: has {found} codes, the policy has {num_codes} image tokens")
    with init_empty_weights(include_buffers=False):
        vision = VQSigLIP2(tower or released_tower(shapes) | named, found, [n for n in CARRIED if n in shapes])
    prefix = PREFIXES["vision"]
    names = {released_name("vision", name).removeprefix(prefix): name for name in vision.state_dict()}
    own = vision.state_dict()
    problems = shape_problems({key: tuple(own[name].shape) for key, name in names.items()}, shapes)
    if problems:
        raise CheckpointError(f"{file}: {problems}")
    # A copy, because what torch.load maps must not change with the file.
    values = {names[key]: tensor.to(device=device, dtype=dtype, copy=True) for key, tensor in tensors.items()}
    vision.load_state_dict(values, assign=True)
    return vision.to(device=device).eval()


def _read(file: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; it is TA-Tok's `ta_tok.pth`")
    try:
        model = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["model"]
        return model["args"], model["sd"]
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: refused, because it holds more than tensors and plain values, and reading such a file can run "
            "code"
        ) from error
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: not a complete TA-Tok file ({type(error).__name__}: {error})") from error
