"""Decodes completions: hidden states of the policy, then the diffusion head, then the image decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from blip3o_grpo.policies.blip3o_next.decoding import denoise_completions, load_head, prepare_head
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.policies.types import Policy
from blip3o_grpo.rollout.messages import DecodedChunk, Denoising, SampledChunk, Snapshot
from blip3o_grpo.rollout.weights.packing import unpack_weights
from blip3o_grpo.rollout.workers.base import Worker
from blip3o_grpo.rollout.workers.compiler import check_compiler


class Decoder(Worker):
    """Actor: completions in, images out.

    Args:
        name: of the worker.
        kind: `policy.type`.
        policy_path: checkpoint folder. The image decoder stays as it is there; the AR part follows snapshots, since
            its hidden states condition the head, and so does the head where it learns.
        dtype: torch dtype name.
        device: `cpu` or `cuda`.
        guidance_scale: of classifier-free guidance.
        options: fields of `blip3o_grpo.configs.decoder.DecoderSection`.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        policy_path: Path,
        dtype: str,
        device: str,
        guidance_scale: float,
        options: Mapping[str, bool],
    ):
        super().__init__(name)
        self._kind = KINDS[kind]
        self._policy_path = policy_path
        self._dtype = getattr(torch, dtype)
        self._device = device
        self._guidance_scale = guidance_scale
        self._options = options
        self._policy: Policy | None = None

    def start(self) -> None:
        """Load the policy."""
        if self._options["compile"] and self._device == "cpu":
            check_compiler("rollout.decoder.compile=true", "rollout.decoder.compile=false")
        policy = self._kind.load(self._policy_path, "painter", dtype=self._dtype, device=self._device)
        self._policy = prepare_head(policy, **self._options)

    def load(self, values: Mapping[str, Any]) -> None:
        """Replace the AR part's weights."""
        self._policy.load_ar(dict(unpack_weights(values)))

    def fetch(self, snapshot: Snapshot) -> None:
        """As every worker's, and the head's weights if the snapshot has some."""
        super().fetch(snapshot)
        for ref in snapshot.boxed[1:]:
            load_head(self._policy, dict(unpack_weights(ray.get(ref))))

    def decode(self, sampled: SampledChunk, part: slice, denoising: Denoising, snapshot: Snapshot) -> DecodedChunk:
        """Images of the groups `part` of a sampled chunk, all in one batch."""
        requests = sampled.requests[part]
        with self.busy("decode", requests):
            self.use(snapshot)
            images, latents = self._decode(sampled, part, denoising)
        ends = np.cumsum([len(request.noise_seeds) for request in requests])[:-1]
        kept = tuple(np.split(latents, ends)) if denoising.keep_latents else ()
        groups = tuple(np.ascontiguousarray(group) for group in np.split(images, ends))
        return DecodedChunk(requests, groups, self.work(), kept)

    def _decode(self, sampled: SampledChunk, part: slice, denoising: Denoising) -> tuple[np.ndarray, np.ndarray]:
        """Images `[B, H, W, 3]` and the latents `[B, S, C, h, w]` they were painted through."""
        requests = sampled.requests[part]
        with self.timed(), torch.inference_mode():  # not around `use`: inference tensors cannot be overwritten later
            prompts, tokens, seeds = [], [], []
            for request, group in zip(requests, sampled.completions[part], strict=True):
                prompts += [request.prompt_ids] * len(group)
                tokens += [completion.token_ids for completion in group]
                seeds += request.noise_seeds
            latents = denoise_completions(
                self._policy,
                prompts,
                torch.from_numpy(np.stack(tokens).astype(np.int64)),
                seeds,
                num_steps=denoising.num_steps,
                guidance_scale=self._guidance_scale,
                guidance_interval=denoising.guidance_interval,
                stochastic=denoising.stochastic,
            )
            images = self._policy.latents_to_images(latents[:, -1]).cpu().numpy()
            return images, latents.float().cpu().numpy()
