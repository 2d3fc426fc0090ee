"""In the place of samplers for a policy that samples no tokens: no engine, no model, empty completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blip3o_grpo.rollout.messages import GroupRequest, SampledChunk, Snapshot
from blip3o_grpo.rollout.types import Completion
from blip3o_grpo.rollout.workers.base import Worker


class NoSampler(Worker):
    """Actor: prompts in, groups of completions without tokens out; all chance is the decoders' noise."""

    def start(self) -> None:
        """There is nothing to load."""

    def load(self, values: Any) -> None:
        """Nor to replace."""

    def fetch(self, snapshot: Snapshot) -> None:
        """The weights are the decoders' business and are not fetched."""

    def sample(self, requests: Sequence[GroupRequest], snapshot: Snapshot) -> SampledChunk:
        """A group of empty completions for every request, of the snapshot's version."""
        with self.busy("sample", requests):
            version = self.use(snapshot)
            with self.timed():
                groups = tuple(
                    tuple(
                        Completion(np.zeros(0, np.int32), np.zeros(0, np.float32), version, request.seed + member)
                        for member in range(request.group_size)
                    )
                    for request in requests
                )
        return SampledChunk(tuple(requests), groups, self.work())
