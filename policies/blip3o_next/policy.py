"""BLIP3o-NEXT: a Qwen3 policy that writes image tokens, and a SANA head that decodes their hidden states.

One class for the tiny and the released size. During RL `ar` learns, and connector and SANA where a run says so; the
image decoder and the VQ tokenizer stay as they are. Left out on purpose: sampling of tokens (vLLM does it, see
`rollout/`) and the losses (see `grpo/warmstart/`, `grpo/training/head/` and TRL). diffusers, half of the import time,
is imported where a head is built or used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from blip3o_grpo.policies.blip3o_next.checkpoint import Weights, check_parts, load_part, save_parts, stored_parts
from blip3o_grpo.policies.blip3o_next.config import (
    image_tokens,
    load_config,
    one_line,
    read_config,
    resolve_policy_path,
)
from blip3o_grpo.policies.blip3o_next.denoising import denoise, path_noise
from blip3o_grpo.policies.blip3o_next.hub import DIFFUSION_CONFIGS, diffusion_folder, read_diffusion_configs
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.positions import position_ids
from blip3o_grpo.policies.blip3o_next.prefill import completion_hidden_states
from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder
from blip3o_grpo.policies.blip3o_next.ta_tok import load_ta_tok, named_file
from blip3o_grpo.policies.blip3o_next.tied import TIE, is_tied, load_weights
from blip3o_grpo.policies.blip3o_next.vision import VQSigLIP2, empty_tokenizer

if TYPE_CHECKING:
    from diffusers import SanaTransformer2DModel


def make_connector(hidden_size: int, caption_channels: int) -> nn.Sequential:
    """Linear, GELU, Linear, RMSNorm: from AR hidden states to SANA's caption channels."""
    connector = nn.Sequential(
        nn.Linear(hidden_size, caption_channels),
        nn.GELU(approximate="tanh"),
        nn.Linear(caption_channels, caption_channels),
        nn.RMSNorm(caption_channels, eps=1e-5),
    )
    nn.init.constant_(connector[3].weight, math.sqrt(5.5))
    return connector


class BLIP3oNext(nn.Module):
    """All parts of a policy.

    Attributes:
        config: Qwen3 configuration with BLIP3o-NEXT's keys.
        ar: `Qwen3ForCausalLM`, the part that learns.
        connector, sana, vae, scheduler: the diffusion head (None unless the part `head` was asked for).
        vision: VQ-SigLIP2 (None unless the part `vision` was asked for).
        prompts: the prompt format and tokenizer.
    """

    # None where a part was not asked for, which whoever uses one knows.
    ar: Any
    connector: Any
    sana: Any
    vae: Any
    scheduler: Any

    def __init__(self, config: Qwen3Config, diffusion: Path, parts: Sequence[str], prompts: PromptEncoder | None):
        super().__init__()
        self.config = config
        if prompts is not None:  # a model of which only shapes are wanted has none
            self.prompts = prompts
        self.released_config: dict | None = None  # what `config.json` said, word by word
        self.diffusion_configs = read_diffusion_configs(diffusion)
        self.image_tokens = image_tokens(config)
        self.ar = Qwen3ForCausalLM(config) if "ar" in parts else None
        self.connector = self.sana = self.vae = self.scheduler = None
        if "head" in parts:
            from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel

            self.sana = SanaTransformer2DModel.from_config(self.diffusion_configs[DIFFUSION_CONFIGS[0]])
            self.vae = AutoencoderDC.from_config(self.diffusion_configs[DIFFUSION_CONFIGS[1]])
            self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.diffusion_configs[DIFFUSION_CONFIGS[2]])
            self.connector = make_connector(config.hidden_size, self.sana.config.caption_channels)
        self.vision: VQSigLIP2 | None = None

    @classmethod
    def shapes(cls, path: str | Path) -> BLIP3oNext:
        """AR part and head of a checkpoint that was checked, on the meta device."""
        folder = resolve_policy_path(path)
        config = load_config(folder)
        with torch.device("meta"):
            return cls(config, diffusion_folder(folder, config.diffusion_name_or_path), ("ar", "head"), None)

    @classmethod
    def check(cls, path: str | Path) -> None:
        """Everything that can be wrong with a checkpoint folder, found without reading or allocating a tensor.

        Raises:
            CheckpointError: as `from_pretrained`.
        """
        folder = resolve_policy_path(path)
        weights = Weights(folder)
        cls._empty(folder, weights, stored_parts(weights))

    @classmethod
    def _empty(cls, folder: Path, weights: Weights, parts: Sequence[str]) -> BLIP3oNext:
        """The asked-for parts without values (parameters on the meta device), found to fit the weights."""
        config = load_config(folder)
        prompts = PromptEncoder.from_pretrained(folder)
        diffusion = diffusion_folder(folder, config.diffusion_name_or_path)
        try:
            with init_empty_weights(include_buffers=False):
                policy = cls(config, diffusion, parts, prompts)
                if "vision" in parts:
                    policy.vision = empty_tokenizer(config, weights.part_shapes("vision"))
        except CheckpointError:
            raise
        except Exception as error:  # whatever model classes make of sizes that cannot be
            raise CheckpointError(f"{folder}: no model can be built from its configs ({one_line(error)})") from error
        if policy.ar is not None:
            policy.ar.tie_weights()  # on the meta device, every assignment made a parameter of its own
        check_parts(weights, policy.parts())
        policy.released_config = read_config(folder)
        return policy

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype | None = torch.float32,
        device: str | torch.device = "cpu",
        parts: Sequence[str] = ("ar", "head"),
    ) -> BLIP3oNext:
        """Load the asked-for parts (`ar`, `head`, `vision`) in evaluation mode.

        Tensors of other parts are not read. If `vision` is wanted and the checkpoint does not hold it, the `ta_tok.pth`
        that `mm_vision_tower` names is loaded. Memory beyond the model itself: one tensor.

        Args:
            path: a folder in the released layout, or the name of a hub repository (`resolve_policy_path`).
            dtype: of all parameters; None leaves each as it is stored.

        Raises:
            CheckpointError: a missing file or key, or tensors that do not fit the configuration; found before
                anything is allocated.
        """
        folder = resolve_policy_path(path)
        weights = Weights(folder)
        file = None
        if "vision" in parts and not weights.names("vision"):
            file = named_file(folder, load_config(folder))
        policy = cls._empty(folder, weights, [part for part in parts if part != "vision" or not file])
        for part, module in policy.parts().items():
            load_part(weights, part, module, dtype=dtype, device=device)
        if file:
            tower = getattr(policy.config, "vision_tower_config", None)
            policy.vision = load_ta_tok(
                file, tower=tower, num_codes=policy.image_tokens.size, dtype=dtype, device=device
            )
        return policy.to(device=device).eval()  # buffers too, in their own dtype: rotary frequencies stay float32

    def save_pretrained(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write every loaded part, the configs and the tokenizer in the released layout.

        A policy that was loaded keeps its `config.json` word by word, but for the dtype if that is another now, and
        for `tie_word_embeddings`, which says what the weights are: a tied policy has no `lm_head.weight`. The three
        configs of the diffusion head are written beside it, so the folder needs no network.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        save_parts(folder, self.parts(), dtype)
        if self.ar is not None:
            self.config.tie_word_embeddings = is_tied(self.ar)
        if self.released_config is None:
            write_config(folder, self.config)
        else:
            write_json(folder / "config.json", self._released_config(dtype))
        relative = Path(self.config.diffusion_name_or_path)
        if not relative.is_absolute() and ".." not in relative.parts:
            for name, values in self.diffusion_configs.items():
                write_json(folder / relative / name, values)
        self.prompts.save(folder)

    def _released_config(self, dtype: torch.dtype | None) -> dict:
        saved = str(dtype or next(self.parameters()).dtype).removeprefix("torch.")
        changed = {key: saved for key in ("dtype", "torch_dtype") if key in self.released_config}
        if bool(self.released_config.get(TIE)) != self.config.tie_word_embeddings:
            changed[TIE] = self.config.tie_word_embeddings
        return self.released_config | changed

    def conditions(self, prompt_ids: Sequence[Sequence[int]], tokens: torch.Tensor) -> torch.Tensor:
        """What the head paints from, `[B, T + 1, D]` (`prefill.completion_hidden_states`)."""
        return completion_hidden_states(self, prompt_ids, tokens)

    def head_parts(self) -> dict[str, nn.Module]:
        """What RL of the head trains, by the names that its weights begin with."""
        return {"connector": self.connector, "sana": self.sana}

    def load_ar(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace the AR part's weights, in place; of tied embeddings one or both."""
        load_weights(self.ar, weights)

    @property
    def transformer(self) -> SanaTransformer2DModel:
        """SANA, by the name that every policy's head has (`denoising.Head`)."""
        return self.sana

    def reading_once(
        self, condition: torch.Tensor, nothing: torch.Tensor | None
    ) -> AbstractContextManager[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """`caption_once.captions_read_once` of SANA."""
        from blip3o_grpo.policies.blip3o_next.caption_once import captions_read_once

        return captions_read_once(self.sana, condition, nothing)

    def parts(self) -> dict[str, nn.Module]:
        """Loaded modules under the names `checkpoint.py` uses."""
        names = ("ar", "sana", "vae", "connector", "vision")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def hidden_states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states of `<S0>` and the image tokens, `[B, T + 1, D]`.

        Args:
            ids: `[B, L + T]`, prompt (left-padded, ending in `<im_start><S0>`) and image tokens.
            mask: `[B, L + T]`, 1 = real token. Padding neither attends nor counts as a position.
        """
        output = self.ar.model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
        return output.last_hidden_state[:, -self.image_tokens.num_tokens - 1 :]

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Initial diffusion noise `[B, C, h, w]`, float32, one generator a sample: independent of batch composition."""
        return path_noise(self, seeds, None)[:, 0]

    def denoise(
        self,
        hidden: torch.Tensor,
        noise: torch.Tensor,
        num_steps: int = 30,
        guidance_scale: float = 2.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> torch.Tensor:
        """Latents `[B, C, h, w]` from hidden states `[B, T + 1, D]` and noise `[B, C, h, w]` (`denoising.denoise`)."""
        return denoise(self, hidden, noise[:, None], num_steps, guidance_scale, guidance_interval)[:, -1]

    @torch.no_grad()
    def latents_to_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """RGB images `[B, 3, H, W]` in [0, 1], float32, from latents `[B, C, h, w]`."""
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.get("shift_factor") or 0.0)
        return (self.vae.decode(latents.to(self.vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)

    def latents_to_images(self, latents: torch.Tensor) -> torch.Tensor:
        """RGB images `[B, H, W, 3]` uint8 from latents `[B, C, h, w]`."""
        return (self.latents_to_pixels(latents) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def decode(
        self,
        hidden: torch.Tensor,
        noise: torch.Tensor,
        num_steps: int = 30,
        guidance_scale: float = 2.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> torch.Tensor:
        """RGB images `[B, H, W, 3]` uint8 from hidden states `[B, T + 1, D]` and noise `[B, C, h, w]`."""
        return self.latents_to_images(self.denoise(hidden, noise, num_steps, guidance_scale, guidance_interval))


def write_config(folder: Path, config: Qwen3Config) -> None:
    """Write `config.json` under the checkpoint's own `model_type`."""
    values = config.to_diff_dict()
    values["model_type"] = values.pop("released_model_type")
    write_json(folder / "config.json", values)


def write_json(file: Path, values: dict) -> None:
    """Write a configuration file, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
