"""The KL term on replayed texts, `trainer.text_kl`: what the policy says of them stays what the starting one said.

Which texts a step replays hangs on seed and step alone, so resumed runs and other numbers of ranks or micro-batches see
the same ones, and nothing of it is in checkpoints: the starting policy is loaded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies.blip3o_next.text import followed, pad_texts, sum_by_row, token_kl
from blip3o_grpo.training.schedule import prompt_schedule

METRIC = "kl/text"

TextForward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Ids `[B, L]` and mask to log-probs `[N, V]` (`text.text_logprobs`)."""


class TextKL:
    """The term on one rank.

    Args:
        config: of a run with `trainer.text_kl`.
        texts: token ids of all texts.
        start: forward of the starting policy; called without gradients.
        rank: of this process.
        device: where it computes.
    """

    def __init__(
        self,
        config: RunConfig,
        texts: Sequence[Sequence[int]],
        start: TextForward,
        rank: int,
        device: torch.device,
    ):
        section, steps = config.trainer.text_kl, config.trainer.max_steps
        self.weight, self.texts, self.start, self.device = section.weight, texts, start, device
        self.share = section.texts_per_step // config.cluster.trainers
        self.first = rank * self.share
        self.per_step = section.texts_per_step
        self.schedule = prompt_schedule(len(texts), self.per_step, steps, config.seed)

    def measure(self, policy: TextForward, step: int) -> torch.Tensor:
        """Mean over this rank's texts of a step of KL(start || policy) per token (nats), with gradients.

        Args:
            policy: forward of the policy that learns.
            step: from 1.
        """
        first = (step - 1) * self.per_step + self.first
        chosen = [self.texts[place] for place in self.schedule[first : first + self.share]]
        ids, mask = pad_texts(chosen, self.device)
        with torch.no_grad():
            start = self.start(ids, mask)
        places = followed(mask)
        return (sum_by_row(token_kl(policy(ids, mask), start), places) / places.sum(1)).mean()
