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


def groups_per_chunk(config: RunConfig, num_groups: int, group_size: int) -> int:
    """Groups of one engine call, where one caller has `num_groups` of them."""
    share = -(-num_groups // config.cluster.samplers)
    return max(1, min(images_per_chunk(config) // group_size, share))


def groups_per_part(config: RunConfig, images_per_group: int) -> int:
    """Groups of one decoder call, where the chunk has so many."""
    return max(1, config.rollout.images_per_decode // images_per_group)


@dataclass(frozen=True)
class Requests:
    """Makes and divides the requests of a run; the same ones in every process."""

    config: RunConfig
    encoder: PromptEncoder

    def make(
        self, prompts: Sequence[Prompt], step: int | str, size: int, draw: Draw | None = None, noises: int = 1
    ) -> list[GroupRequest]:
        """One group of `size` members per prompt, each painted from so many noises.

        Raises:
            PromptError: a prompt is longer than the policy's context.
        """
        return [self._request(prompt, step, size, draw, noises) for prompt in prompts]

    def chunks(self, requests: Sequence[GroupRequest]) -> list[Sequence[GroupRequest]]:
        """Requests of one size by engine call: the same number of completions whatever the size, no idle sampler."""
        if not requests:
            return []
        per_chunk = groups_per_chunk(self.config, len(requests), requests[0].group_size)
        return [requests[start : start + per_chunk] for start in range(0, len(requests), per_chunk)]

    def parts(self, chunk: Sequence[GroupRequest]) -> list[slice]:
        """A chunk's groups by decoder call."""
        per_part = groups_per_part(self.config, len(chunk[0].noise_seeds))
        return [slice(start, start + per_part) for start in range(0, len(chunk), per_part)]

    def _request(self, prompt: Prompt, step: int | str, size: int, draw: Draw | None, noises: int) -> GroupRequest:
        run = self.config
        noise = tuple(
            noise_seed(run.seed, step, prompt.id, member, run.rollout.noise, index, noises)
            for member in range(size)
            for index in range(noises)
        )
        seed = completion_seed(run.seed, step, prompt.id, 0)
        return GroupRequest(prompt, self.encoder.encode(prompt.text), size, seed, noise, draw)
