"""Prompts as requests, with all their seeds, and how requests travel: in chunks to samplers, in parts to decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies import PromptEncoder
from blip3o_grpo.rollout.messages import Draw, GroupRequest
from blip3o_grpo.rollout.placement.pools import images_per_chunk
from blip3o_grpo.rollout.seeds import completion_seed, noise_seed
from blip3o_grpo.rollout.types import Prompt


@dataclass(frozen=True)
class Requests:
    """Makes and divides the requests of a run; the same ones in every process."""

    config: RunConfig
    encoder: PromptEncoder

    def make(
        self, prompts: Sequence[Prompt], step: int | str, size: int, draw: Draw | None = None
    ) -> list[GroupRequest]:
        """One group of `size` members per prompt.

        Raises:
            PromptError: a prompt is longer than the policy's context.
        """
        return [self._request(prompt, step, size, draw) for prompt in prompts]

    def chunks(self, requests: Sequence[GroupRequest]) -> list[Sequence[GroupRequest]]:
        """Requests of one size by engine call: the same number of completions whatever the size, no idle sampler."""
        if not requests:
            return []
        share = -(-len(requests) // self.config.cluster.samplers)
        per_chunk = max(1, min(images_per_chunk(self.config) // requests[0].group_size, share))
        return [requests[start : start + per_chunk] for start in range(0, len(requests), per_chunk)]

    def parts(self, chunk: Sequence[GroupRequest]) -> list[slice]:
        """A chunk's groups by decoder call."""
        per_part = max(1, self.config.rollout.images_per_decode // chunk[0].group_size)
        return [slice(start, start + per_part) for start in range(0, len(chunk), per_part)]

    def _request(self, prompt: Prompt, step: int | str, size: int, draw: Draw | None) -> GroupRequest:
        run = self.config
        noise = tuple(noise_seed(run.seed, step, prompt.id, member, run.rollout.noise) for member in range(size))
        seed = completion_seed(run.seed, step, prompt.id, 0)
        return GroupRequest(prompt, self.encoder.encode(prompt.text), size, seed, noise, draw)
