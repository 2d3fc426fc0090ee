"""Write a checkpoint of the released shapes with random weights, or of the same model at a smaller scale.

    .venv/bin/python scripts/make_full_size.py FOLDER [--scale 0.05] [--seed 0] [--shard-gb 2]
    .venv/bin/python scripts/make_full_size.py --layout            # the table of docs/checkpoint-keys.md

The real size is 9.6 GB in bfloat16 shards. The model is never in memory: its shapes come from the meta device, and
each shard is drawn, written and forgotten. A tensor's values depend on its name and the seed, not on the shards.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from huggingface_hub import split_torch_state_dict_into_shards
from rich.console import Console
from safetensors.torch import save_file

from blip3o_grpo.policies.blip3o_next import released
from blip3o_grpo.policies.blip3o_next.checkpoint import INDEX, released_name
from blip3o_grpo.policies.blip3o_next.config import image_tokens, load_config
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext, write_json
from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder
from blip3o_grpo.policies.blip3o_next.tokenizer_files import make_readable
from blip3o_grpo.policies.blip3o_next.vision import VQSigLIP2
from blip3o_grpo.policies.tiny_world.architecture import make_tokenizer

DTYPE = torch.bfloat16
CORPUS = ["a red sign that says TAXI", "a photo of two blue circles beside a green square"]


def shapes(folder: Path, scale: float) -> dict[str, torch.Tensor]:
    """Every tensor under its released name, on the meta device."""
    config = load_config(folder)
    with torch.device("meta"):
        policy = BLIP3oNext(config, folder / released.DIFFUSION_NAME, ("ar", "head"), None)
        policy.vision = VQSigLIP2(released.vision_sizes(scale), config.num_image_tokens)
    policy = policy.to(DTYPE)
    return {
        released_name(part, name): tensor
        for part, module in policy.parts().items()
        for name, tensor in module.state_dict().items()
    }


def draw(name: str, shape: torch.Size, seed: int, device: str = "cpu") -> torch.Tensor:
    """Random values of a tensor: scales of norms near 1, other vectors near 0, matrices of standard deviation 0.02.

    A device other than the CPU draws other values.
    """
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=6).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))
    values = torch.empty(shape, dtype=DTYPE, device=device).normal_(0, 0.02, generator=generator)
    return values + 1 if len(shape) == 1 and name.endswith("weight") else values


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor], seed: int, shard_bytes: int) -> None:
    """Draw and write shard after shard, and the index if there are several."""
    split = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=shard_bytes)
    with Console().status("drawing weights") as status:
        for number, (file, names) in enumerate(split.filename_to_tensors.items(), 1):
            status.update(f"drawing shard {number} of {len(split.filename_to_tensors)}")
            shard = {name: draw(name, tensors[name].shape, seed) for name in names}
            save_file(shard, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def make_in_memory(scale: float, seed: int, device: str, dtype: torch.dtype = DTYPE) -> BLIP3oNext:
    """AR part and head of the same policy, drawn on the device: no file, no tokenizer (only `prompts.pad` works)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        released.write_configs(folder, scale)
        config = load_config(folder)
        prompts = PromptEncoder(None, config.max_position_embeddings - image_tokens(config).num_tokens)
        with init_empty_weights(include_buffers=False):
            policy = BLIP3oNext(config, folder / released.DIFFUSION_NAME, ("ar", "head"), prompts)
    for part, module in policy.parts().items():
        drawn = {
            name: draw(released_name(part, name), tensor.shape, seed, device).to(dtype)
            for name, tensor in module.state_dict().items()
        }
        module.load_state_dict(drawn, assign=True)
    return policy.to(device).eval().requires_grad_(False)


def layout(tensors: Mapping[str, torch.Tensor]) -> str:
    """Markdown table of names and shapes; indices of layers that look alike share a row, as `{0-27}`."""
    rows: dict[tuple[str, tuple[int, ...]], list[tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "#", name)
        indices = tuple(int(number) for number in re.findall(r"(?<=\.)\d+(?=\.)", name))
        rows.setdefault((pattern, tuple(tensor.shape)), []).append(indices)
    lines = ["| key | tensors | shape |", "|---|---|---|"]
    for (pattern, shape), indices in rows.items():
        for position in zip(*indices, strict=True):
            pattern = pattern.replace("#", _range(sorted(set(position))), 1)
        lines.append(f"| `{pattern}` | {len(indices)} | {' × '.join(map(str, shape)) or 'scalar'} |")
    return "\n".join(lines) + "\n"


def _range(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{{{numbers[0]}-{numbers[-1]}}}" if whole else f"{{{','.join(map(str, numbers))}}}"


def make(folder: Path, scale: float = 1.0, seed: int = 0, shard_gb: float = 2.0) -> Path:
    """Write the checkpoint and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    released.write_configs(folder, scale)
    make_tokenizer(CORPUS, released.num_image_tokens(scale), released.num_text_tokens(scale)).save_pretrained(folder)
    make_readable(folder)
    write_weights(folder, shapes(folder, scale), seed, int(shard_gb * 1e9))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--scale", type=float, default=1.0, help="above 0, at most 1: the released size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-gb", type=float, default=2.0, help="largest file, in 10^9 bytes")
    parser.add_argument("--layout", action="store_true", help="print the table of keys and shapes, write nothing")
    args = parser.parse_args()
    if not 0 < args.scale <= 1:
        parser.error(f"--scale is {args.scale}; it must be above 0 and at most 1")
    if args.layout:
        with tempfile.TemporaryDirectory() as folder:
            released.write_configs(Path(folder), args.scale)
            sys.stdout.write(layout(shapes(Path(folder), args.scale)))
    elif args.folder is None:
        parser.error("give the folder to write to, or --layout")
    else:
        if args.folder.exists() and any(args.folder.iterdir()):
            parser.error(f"{args.folder} is not empty")
        make(args.folder, args.scale, args.seed, args.shard_gb)


if __name__ == "__main__":
    main()
