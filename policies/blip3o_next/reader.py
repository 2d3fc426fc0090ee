"""The policy as a reader of pictures: VQ-SigLIP2 makes tokens of them, the AR part writes the answer.

Answers are text: image tokens take no part in likelihoods and are never written. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from blip3o_grpo.policies.blip3o_next.chat import encode_answer, encode_question
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptError
from blip3o_grpo.policies.blip3o_next.text import pad_texts, sum_by_row, text_logprobs, text_targets

END = "<|im_end|>"
"""Of a message in Qwen's chat."""


class ImageReader:
    """Answers questions about pictures.

    Args:
        policy: with the parts `ar` and `vision`.
    """

    def __init__(self, policy: BLIP3oNext):
        self.policy = policy
        self.context = policy.config.max_position_embeddings
        self.end = policy.prompts.tokenizer.added_tokens_encoder[END]

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> ImageReader:
        """A checkpoint's AR part and its VQ tokenizer; raises CheckpointError as `BLIP3oNext.from_pretrained`."""
        return cls(BLIP3oNext.from_pretrained(path, parts=("ar", "vision"), dtype=dtype, device=device))

    @torch.no_grad()
    def see(self, pictures: Sequence[np.ndarray]) -> list[list[int]]:
        """Codes of pictures `[H, W, 3]` uint8 of any size, each scaled to the tokenizer's square."""
        codes = []
        for picture in pictures:
            values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
            dtype = next(self.policy.vision.parameters()).dtype
            pixels = (values.to(self.policy.ar.device).float() / 255).to(dtype)
            codes.append(self.policy.vision.encode(pixels)[0].tolist())
        return codes

    def ask(self, question: str, codes: Sequence[Sequence[int]], room: int) -> list[int]:
        """Token ids of a question about pictures, with room for an answer of so many tokens.

        Raises:
            PromptError: it does not fit the context, or is no text.
        """
        ids = encode_question(self.policy.prompts, question, codes)
        if len(ids) + room > self.context:
            raise PromptError(
                f"question {question[:60]!r} with {len(codes)} pictures is {len(ids)} tokens long; with {room} for an "
                f"answer that is more than the model's context of {self.context}"
            )
        return ids

    @torch.no_grad()
    def loglikelihoods(
        self, question: str, codes: Sequence[Sequence[int]], answers: Sequence[str]
    ) -> list[tuple[float, bool]]:
        """Of each answer, its log-probability (nats, summed over its tokens) over the text vocabulary, and whether
        greedy decoding would write it.

        Raises:
            PromptError: as `ask`; an answer that is no text.
            CheckpointError: the policy computes NaN.
        """
        encoded = [encode_answer(self.policy.prompts, answer) for answer in answers]
        asked = self.ask(question, codes, max(map(len, encoded)))
        ids, mask = pad_texts([asked + answer for answer in encoded], self.policy.ar.device)
        places = mask[:, 1:].bool()
        places[:, : len(asked) - 1] = False
        logprobs = text_logprobs(self.policy.ar, ids, mask, self.policy.image_tokens, places)
        targets = text_targets(ids, places, self.policy.image_tokens)
        sums = sum_by_row(logprobs.gather(1, targets[:, None])[:, 0].double(), places)
        if not sums.isfinite().all():  # the largest of NaN would be somebody's answer
            raise CheckpointError("the policy's log-probabilities of an answer are NaN; its weights are damaged")
        missed = sum_by_row((logprobs.argmax(1) != targets).double(), places)
        return [(total, not misses) for total, misses in zip(sums.tolist(), missed.tolist(), strict=True)]

    @torch.no_grad()
    def generate(self, question: str, codes: Sequence[Sequence[int]], max_new_tokens: int) -> str:
        """The greedy answer, up to the end of the message or so many tokens; shorter where the context ends.

        Raises:
            PromptError: as `ask`.
        """
        asked = self.ask(question, codes, 1)
        settings = GenerationConfig(
            max_new_tokens=min(max_new_tokens, self.context - len(asked)),
            do_sample=False,
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        ids = torch.tensor([asked], device=self.policy.ar.device)
        written = self.policy.ar.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=LogitsProcessorList([_TextOnly(self.policy)]),
        )
        return self.policy.prompts.tokenizer.decode(written[0, len(asked) :], skip_special_tokens=True)


class _TextOnly(LogitsProcessor):
    """No image token is written."""

    def __init__(self, policy: BLIP3oNext):
        self.tokens = policy.image_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, self.tokens.start : self.tokens.stop] = -torch.inf
        return scores
