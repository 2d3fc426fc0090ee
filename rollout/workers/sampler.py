"""Draws image tokens: a vLLM engine in an actor of its own.

A group is one request with `n` members; the prompt is computed once (prefix caching). Top-k and top-p are for requests
that are not trained on, since the trainer's log-probabilities are over the whole image vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.policies import image_tokens, load_config
from blip3o_grpo.rollout.messages import Draw, GroupRequest, SampledChunk, Snapshot
from blip3o_grpo.rollout.types import Completion, RolloutError
from blip3o_grpo.rollout.vllm_seams import reload_weights
from blip3o_grpo.rollout.weights.packing import unpack_weights
from blip3o_grpo.rollout.weights.receiver import WeightReceiver
from blip3o_grpo.rollout.workers.engine import EngineIds, EngineSettings, start_engine


class Sampler(WeightReceiver):
    """Actor: prompts in, groups of completions out.

    Args:
        name: of the worker.
        policy_path: checkpoint folder; the engine starts with its weights and then follows snapshots, fetched or
            transferred.
        settings: of the engine.
        temperature: divides the logits, where a request says nothing else.
    """

    def __init__(self, name: str, policy_path: Path, settings: EngineSettings, temperature: float):
        super().__init__(name)
        self._policy_path = policy_path
        self._settings = settings
        self._draw_of_training = Draw(temperature)

    def start(self) -> None:
        """Start the engine."""
        config = load_config(self._policy_path)
        self._tokens = image_tokens(config)
        self._engine = start_engine(self._policy_path, self._settings)
        self._ids = EngineIds(self._tokens, config.vocab_size)

    def load(self, values: Mapping[str, Any]) -> None:
        """Replace the engine's weights, in its own layout, and forget the prompts computed with the old ones."""
        self.wake_up()
        reload_weights(self._engine, lambda: unpack_weights(values))
        self._engine.reset_prefix_cache()

    def sample(self, requests: Sequence[GroupRequest], snapshot: Snapshot) -> SampledChunk:
        """Completions of every group, drawn in one engine call with the snapshot's weights.

        The result depends on the requests and the weights only: the prefix cache is emptied first, so earlier calls
        leave no trace.

        Raises:
            RolloutError: the engine returned a completion that cannot be trained on.
        """
        with self.busy("sample", requests):
            version = self.use(snapshot)
            self.wake_up()
            completions = self._draw(requests, version)
        return SampledChunk(tuple(requests), completions, self.work())

    def _draw(self, requests: Sequence[GroupRequest], version: int) -> tuple[tuple[Completion, ...], ...]:
        from vllm import SamplingParams

        with self.timed():
            self._engine.reset_prefix_cache()
            length = self._tokens.num_tokens
            draws = [request.draw or self._draw_of_training for request in requests]
            outputs = self._engine.generate(
                [{"prompt_token_ids": self._ids.of_prompt(request.prompt_ids)} for request in requests],
                [
                    SamplingParams(
                        n=request.group_size,
                        seed=request.seed,
                        temperature=draw.temperature,
                        top_p=draw.top_p,
                        top_k=draw.top_k,
                        max_tokens=length,
                        ignore_eos=True,
                        detokenize=False,
                        logprobs=0,  # of the drawn token only
                        flat_logprobs=True,
                    )
                    for request, draw in zip(requests, draws, strict=True)
                ],
                use_tqdm=False,
            )
            completions = tuple(
                tuple(
                    Completion(
                        self._ids.to_policy(member.token_ids),
                        np.asarray(member.logprobs.logprobs, np.float32),
                        version,
                        request.seed + index,
                    )
                    for index, member in enumerate(output.outputs)
                )
                for request, output in zip(requests, outputs, strict=True)
            )
            for request, group in zip(requests, completions, strict=True):
                self._check(request, group)
        return completions

    def _check(self, request: GroupRequest, group: Sequence[Completion]) -> None:
        length = self._tokens.num_tokens
        for member, completion in enumerate(group):
            tokens, logprobs = completion.token_ids, completion.logprobs
            problem = None
            if len(group) != request.group_size or len(tokens) != length or len(logprobs) != length:
                problem = f"{len(group)} members, {len(tokens)} tokens, {len(logprobs)} log-probs (wanted {length})"
            elif tokens.min() < self._tokens.start or tokens.max() >= self._tokens.stop:
                problem = f"token ids {tokens.min()}..{tokens.max()} outside the image tokens"
            elif not np.isfinite(logprobs).all():
                problem = "log-probabilities that are not finite; are the weights?"
            if problem:
                raise RolloutError(f"{self.name}, prompt {request.prompt.text!r}, member {member}: {problem}")
