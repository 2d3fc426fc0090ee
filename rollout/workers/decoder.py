"""Decodes completions: hidden states of the policy, then the diffusion head, then the image decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.decoding import decode_completions, prepare_head
from blip3o_grpo.policies.blip3o_next.tied import load_weights
from blip3o_grpo.rollout.messages import DecodedChunk, Denoising, SampledChunk, Snapshot
from blip3o_grpo.rollout.weights.packing import unpack_weights
from blip3o_grpo.rollout.workers.base import Worker
from blip3o_grpo.rollout.workers.compiler import check_compiler


class Decoder(Worker):
    """Actor: completions in, images out.

    Args:
        name: of the worker.
        policy_path: checkpoint folder. Head and image decoder stay as they are there; the AR part follows snapshots,
            since its hidden states condition the head.
        dtype: torch dtype name.
        device: `cpu` or `cuda`.
        guidance_scale: of classifier-free guidance.
        options: fields of `blip3o_grpo.configs.decoder.DecoderSection`.
    """

    def __init__(
        self,
        name: str,
        policy_path: Path,
        dtype: str,
        device: str,
        guidance_scale: float,
        options: Mapping[str, bool],
    ):
        super().__init__(name)
        self._policy_path = policy_path
        self._dtype = getattr(torch, dtype)
        self._device = device
        self._guidance_scale = guidance_scale
        self._options = options
        self._policy: BLIP3oNext | None = None

    def start(self) -> None:
        """Load the policy."""
        if self._options["compile"] and self._device == "cpu":
            check_compiler("rollout.decoder.compile=true", "rollout.decoder.compile=false")
        policy = BLIP3oNext.from_pretrained(self._policy_path, dtype=self._dtype, device=self._device)
        self._policy = prepare_head(policy, **self._options)

    def load(self, values: Mapping[str, Any]) -> None:
        """Replace the AR part's weights."""
        load_weights(self._policy.ar, dict(unpack_weights(values)))

    def decode(self, sampled: SampledChunk, part: slice, denoising: Denoising, snapshot: Snapshot) -> DecodedChunk:
        """Images of the groups `part` of a sampled chunk, all in one batch."""
        requests = sampled.requests[part]
        with self.busy("decode", requests):
            self.use(snapshot)
            groups = self._decode(sampled, part, denoising)
        return DecodedChunk(requests, groups, self.work())

    def _decode(self, sampled: SampledChunk, part: slice, denoising: Denoising) -> tuple[np.ndarray, ...]:
        requests = sampled.requests[part]
        with self.timed(), torch.inference_mode():  # not around `use`: inference tensors cannot be overwritten later
            prompts, tokens, seeds = [], [], []
            for request, group in zip(requests, sampled.completions[part], strict=True):
                prompts += [request.prompt_ids] * len(group)
                tokens += [completion.token_ids for completion in group]
                seeds += request.noise_seeds
            images = decode_completions(
                self._policy,
                prompts,
                torch.from_numpy(np.stack(tokens).astype(np.int64)),
                seeds,
                num_steps=denoising.num_steps,
                guidance_scale=self._guidance_scale,
                guidance_interval=denoising.guidance_interval,
            ).numpy()
            ends = np.cumsum([request.group_size for request in requests])
            return tuple(np.ascontiguousarray(group) for group in np.split(images, ends[:-1]))
