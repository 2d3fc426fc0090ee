"""Paints completions: hidden states of the policy, then the diffusion head, then the image decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies import BLIP3oNext
from rollout.messages import PaintedChunk, SampledChunk, Snapshot
from rollout.weight_sync import unpack_weights
from rollout.worker import Worker


class Decoder(Worker):
    """Actor: completions in, images out.

    Args:
        name: of the worker.
        policy_path: checkpoint folder. Head and image decoder stay as they are there; the AR part follows snapshots,
            since its hidden states condition the head.
        dtype: torch dtype name.
        device: `cpu` or `cuda`.
        guidance_scale: of classifier-free guidance.
    """

    def __init__(self, name: str, policy_path: Path, dtype: str, device: str, guidance_scale: float):
        super().__init__(name)
        self._policy_path = policy_path
        self._dtype = getattr(torch, dtype)
        self._device = device
        self._guidance_scale = guidance_scale

    def start(self) -> None:
        """Load the policy."""
        self._policy = BLIP3oNext.from_pretrained(self._policy_path, dtype=self._dtype, device=self._device)

    def load(self, values: Mapping[str, Any]) -> None:
        """Replace the AR part's weights."""
        self._policy.ar.load_state_dict(dict(unpack_weights(values)))

    def paint(self, sampled: SampledChunk, part: slice, num_steps: int, snapshot: Snapshot) -> PaintedChunk:
        """Images of the groups `part` of a sampled chunk, all in one batch, in `num_steps` Euler steps."""
        requests = sampled.requests[part]
        with self.busy("decode", requests):
            self.use(snapshot)
            groups = self._paint(sampled, part, num_steps)
        return PaintedChunk(requests, groups, self.work())

    def _paint(self, sampled: SampledChunk, part: slice, num_steps: int) -> tuple[np.ndarray, ...]:
        requests = sampled.requests[part]
        with self.timed(), torch.inference_mode():  # not around `use`: inference tensors cannot be overwritten later
            policy = self._policy
            sequences, seeds = [], []
            for request, group in zip(requests, sampled.completions[part], strict=True):
                sequences += [[*request.prompt_ids, *completion.token_ids] for completion in group]
                seeds += request.noise_seeds
            ids, mask = policy.prompts.pad(sequences)
            hidden = policy.hidden_states(ids.to(self._device), mask.to(self._device))
            images = policy.decode(hidden, policy.noise(seeds), num_steps, self._guidance_scale).cpu().numpy()
            ends = np.cumsum([request.group_size for request in requests])
            return tuple(np.ascontiguousarray(group) for group in np.split(images, ends[:-1]))
