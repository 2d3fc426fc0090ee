"""BLIP3-o: Qwen2.5-VL reads a prompt and learned latent queries, and a diffusion transformer makes features of them.

The AR part samples nothing: the last hidden states of the queries are the condition, read once for a prompt, and all
chance is the features' noise. Left out: Qwen2.5-VL's vision tower and language head, since nothing here reads pictures
or writes text, and the losses (`grpo/warmstart/features.py`, `grpo/training/head/`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import nn
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from blip3o_grpo.configs.atomic import staged_file, write_atomically
from blip3o_grpo.policies.blip3o.config import read_config
from blip3o_grpo.policies.blip3o.dit import FeatureDiT
from blip3o_grpo.policies.blip3o.pixel_decoder import AutoencoderDecoder
from blip3o_grpo.policies.blip3o.prompt_encoder import QueryPromptEncoder
from blip3o_grpo.policies.blip3o_next.checkpoint import SINGLE, Weights, shape_problems
from blip3o_grpo.policies.blip3o_next.config import ImageTokens, one_line, resolve_policy_path
from blip3o_grpo.policies.blip3o_next.denoising import denoise, path_noise
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.positions import position_ids

QUERY_STD = 0.02
PARTS = {"ar": ("ar.", "latent_queries"), "head": ("connector.", "dit."), "pixels": ("decoder.",)}
"""Names of each part's tensors begin so."""


class BLIP3o(nn.Module):
    """All parts of a policy.

    Attributes:
        config: what `config.json` says.
        ar: `Qwen2_5_VLTextModel`; frozen but in joint training.
        latent_queries: `[1, num_queries, H]`, embeddings that follow every prompt.
        connector: from the AR part's hidden states to the transformer's condition; the caption projection.
        dit: the diffusion transformer of features.
        decoder: from features to pixels (`pixel_decoder.PixelDecoder`).
        scheduler: of flow matching.
        prompts: the prompt format and tokenizer.
    """

    def __init__(self, config: dict[str, Any], prompts: QueryPromptEncoder | None, parts: Sequence[str] = tuple(PARTS)):
        super().__init__()
        self.config, self.prompts = config, prompts
        self.ar = self.latent_queries = self.connector = self.dit = self.decoder = None
        width = config["ar"]["hidden_size"]
        if "ar" in parts:
            self.ar = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**config["ar"]))
            self.latent_queries = nn.Parameter(torch.randn(1, config["num_queries"], width) * QUERY_STD)
        if "head" in parts:
            self.dit = FeatureDiT.from_config(config["dit"])
            self.connector = make_connector(width, self.dit.config.cross_attention_dim)
        if "pixels" in parts:
            self.decoder = AutoencoderDecoder(config["pixel_decoder"])
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config["scheduler"])

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype | None = torch.float32,
        device: str | torch.device = "cpu",
        parts: Sequence[str] = tuple(PARTS),
    ) -> BLIP3o:
        """Load the asked-for parts (`ar`, `head`, `pixels`) in evaluation mode; tensors of others are not read.

        Args:
            path: a folder that `save_pretrained` wrote.
            dtype: of all parameters; None leaves each as it is stored.

        Raises:
            CheckpointError: another model's checkpoint, a missing file or key, or tensors that do not fit the
                configuration; found before anything is allocated.
        """
        folder = resolve_policy_path(path)
        policy, weights = cls._empty(folder, parts)
        names = list(policy.state_dict())
        tensors = {name: value.to(device=device, dtype=dtype or value.dtype) for name, value in weights.read(names)}
        policy.load_state_dict({name: value.clone() for name, value in tensors.items()}, assign=True)
        return policy.to(device).eval()  # buffers too: rotary frequencies stay float32

    @classmethod
    def shapes(cls, path: str | Path) -> BLIP3o:
        """AR part and head of a checkpoint that was checked, on the meta device."""
        return cls._empty(resolve_policy_path(path), ("ar", "head"))[0]

    @classmethod
    def check(cls, path: str | Path) -> None:
        """Everything that can be wrong with a checkpoint folder, found without reading or allocating a tensor.

        Raises:
            CheckpointError: as `from_pretrained`.
        """
        cls._empty(resolve_policy_path(path), tuple(PARTS))

    @classmethod
    def _empty(cls, folder: Path, parts: Sequence[str]) -> tuple[BLIP3o, Weights]:
        """The asked-for parts with parameters on the meta device, found to fit the weights, and these."""
        config = read_config(folder)
        weights = Weights(folder)
        prompts = QueryPromptEncoder.from_pretrained(folder)
        try:
            with init_empty_weights(include_buffers=False):
                policy = cls(config, prompts, parts)
        except Exception as error:  # whatever model classes make of sizes that cannot be
            raise CheckpointError(
                f"{folder}: no model can be built from its config.json ({one_line(error)})"
            ) from error
        prefixes = tuple(prefix for part in parts for prefix in PARTS[part])
        expected = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
        found = {name: shape for name, shape in weights.shapes.items() if name.startswith(prefixes)}
        if problems := shape_problems(expected, found):
            raise CheckpointError(f"{folder}: the {', '.join(parts)} weights do not fit config.json; {problems}")
        return policy, weights

    def save_pretrained(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write weights, `config.json` and tokenizer; each file whole or not at all, the configuration last."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().to(dtype or value.dtype).cpu() for name, value in self.state_dict().items()}
        with staged_file(folder / SINGLE) as staged:
            save_file({name: value.contiguous().clone() for name, value in tensors.items()}, staged)
        self.prompts.save(folder)
        write_atomically(folder / "config.json", json.dumps(self.config, indent=2, sort_keys=True) + "\n")

    # What rollouts and trainer ask of every policy (`policies.kinds`).

    @property
    def image_tokens(self) -> ImageTokens:
        """The action space, which is empty."""
        return ImageTokens(self.config["image_start_token_id"], 0, 0)

    def conditions(self, prompt_ids: Sequence[Sequence[int]], tokens: torch.Tensor) -> torch.Tensor:
        """As `condition`; `tokens` `[B, 0]`, since there are none."""
        return self.condition(prompt_ids)

    def head_parts(self) -> dict[str, nn.Module]:
        """What RL of the head trains, by the names that its weights begin with."""
        return {"connector": self.connector, "dit": self.dit}

    def load_ar(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace the AR part's weights, in place."""
        self.ar.load_state_dict(weights)

    # Reading.

    def condition(self, prompt_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Last hidden states of the latent queries, `[B, num_queries, H]`; equal prompts are read once.

        Args:
            prompt_ids: ids of every row's prompt, ending in `[IMG]`.
        """
        distinct = list(dict.fromkeys(map(tuple, prompt_ids)))
        ids, mask = (value.to(self.ar.device) for value in self.prompts.pad(distinct))
        places = {ids: place for place, ids in enumerate(distinct)}
        return self.read(ids, mask)[[places[tuple(ids)] for ids in prompt_ids]]

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As `condition`, of prompts `[B, L]`, left-padded, with their mask `[B, L]`; gradients flow through it."""
        queries = self.latent_queries.to(ids.device).expand(len(ids), -1, -1)  # a trainer moves `ar` alone
        whole = torch.cat([mask, mask.new_ones(queries.shape[:2])], 1)
        output = self.ar(
            inputs_embeds=torch.cat([self.ar.embed_tokens(ids), queries], 1),
            attention_mask=whole,
            position_ids=position_ids(whole),
            use_cache=False,
        )
        return output.last_hidden_state[:, -queries.shape[1] :]

    # Painting.

    @property
    def transformer(self) -> FeatureDiT:
        """The head's, by the name that every policy has (`denoising.Head`)."""
        return self.dit

    @contextmanager
    def reading_once(
        self, condition: torch.Tensor, nothing: torch.Tensor | None
    ) -> Iterator[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """Velocities `[U + B, C, h, w]`, float32, of latents at one time step; the last B rows have conditions.

        Args:
            condition: `[B, T, D]` from the connector.
            nothing: `[1, 1, D]`, the unconditional branch's one vector; None without guidance.
        """
        empty = None if nothing is None else nothing.expand(1, condition.shape[1], -1)

        def velocity(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            without = len(latents) - len(condition)
            seen = torch.cat([empty.expand(without, -1, -1), condition]) if without else condition
            return self.dit(latents.to(self.dit.dtype), timestep.expand(len(latents)), seen).sample.float()

        yield velocity

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Initial noise of features `[B, C, h, w]`, float32, one generator a sample."""
        return path_noise(self, seeds, None)[:, 0]

    def denoise(
        self, condition: torch.Tensor, noise: torch.Tensor, num_steps: int = 30, guidance_scale: float = 3.0
    ) -> torch.Tensor:
        """Features `[B, C, h, w]` of conditions `[B, T, H]` by Euler steps, guided against a condition of zeros."""
        return denoise(self, condition, noise[:, None], num_steps, guidance_scale)[:, -1]

    def latents_to_images(self, features: torch.Tensor) -> torch.Tensor:
        """RGB images `[B, H, W, 3]` uint8 of features `[B, C, h, w]`."""
        return (self.decoder.pixels_of(features) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def make_connector(hidden_size: int, width: int) -> nn.Sequential:
    """Linear, GELU, Linear: the caption projection, from AR hidden states to the transformer's condition."""
    return nn.Sequential(nn.Linear(hidden_size, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
