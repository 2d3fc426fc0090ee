"""The AR part of BLIP3o-NEXT inside vLLM: read from the released folder, and blind to everything but image tokens.

A sampler needs logits of the image tokens only, 65,536 of about 217,000 at full size. vLLM takes the column of a
logit for its token id, so here the vocabulary is turned until the image tokens come first: engine id = (id - first
image token) mod vocabulary. The embedding's rows are turned alike when weights are read, the head keeps the image
rows, and the support needs no mask. With tied embeddings these rows are the embedding's, taken again from every
embedding that is loaded. `blip3o_grpo.rollout.workers.engine.EngineIds` translates at the border.

`register` tells this process's vLLM about the folder layout and the model; vLLM's own Qwen3 does all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Qwen3Config
from vllm import ModelRegistry
from vllm.config import ModelConfig, VllmConfig

from blip3o_grpo.policies import CheckpointError, image_tokens, load_config
from blip3o_grpo.policies.blip3o_next.checkpoint import Weights
from blip3o_grpo.policies.blip3o_next.tied import EMBEDDING, HEAD
from blip3o_grpo.rollout.vllm_seams import (
    BaseModelLoader,
    ConfigParserBase,
    LogitsProcessor,
    ParallelLMHead,
    Qwen3ForCausalLM,
    maybe_prefix,
    register_config_parser,
    register_model_loader,
)

ARCHITECTURE = "BLIP3oNextImageTokens"


class ImageTokenQwen3(Qwen3ForCausalLM):
    """vLLM's Qwen3 on the turned vocabulary, with a head of image rows."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.tokens = image_tokens(self.config)
        self.lm_head = ParallelLMHead(
            self.tokens.size,
            self.config.hidden_size,
            quant_config=self.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        self.logits_processor = LogitsProcessor(self.tokens.size)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Take over weights in the released names and shapes."""
        return super().load_weights(self._turned(weights))

    def _turned(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        tied, image = self.config.image_rows_are_tied, slice(self.tokens.start, self.tokens.stop)
        for name, tensor in weights:
            if name == EMBEDDING:
                yield name, tensor.roll(-self.tokens.start, 0)
            elif name != HEAD:
                yield name, tensor
            if name == (EMBEDDING if tied else HEAD):
                yield HEAD, tensor[image]


class ReleasedConfig(ConfigParserBase):
    """Reads the released `config.json` for vLLM."""

    def parse(self, model: str | Path, *args: Any, **kwargs: Any) -> tuple[dict, Qwen3Config]:
        """The configuration as a dictionary and as an object."""
        config = load_config(model)
        config.architectures = [ARCHITECTURE]
        # vLLM would tie the whole head to the turned embedding; ours has the image rows, wherever they come from.
        config.image_rows_are_tied, config.tie_word_embeddings = config.tie_word_embeddings, False
        return config.to_dict(), config


class ReleasedWeights(BaseModelLoader):
    """Reads the AR part's tensors, and no others, out of the released folder."""

    def download_model(self, model_config: ModelConfig) -> None:
        """Nothing to do: the folder is there."""

    def get_all_weights(self, model_config: ModelConfig, model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        """The AR part's tensors, one at a time."""
        tied = model_config.hf_config.image_rows_are_tied
        yield from Weights(Path(model_config.model)).read_part("ar", tied=tied)

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Fill a new model.

        Raises:
            CheckpointError: listing tensors the folder does not have.
        """
        loaded = model.load_weights(self.get_all_weights(model_config, model))
        missing = sorted(name for name, _ in model.named_parameters() if name not in loaded)
        if missing:
            raise CheckpointError(f"{model_config.model}: the sampler found no weights for {', '.join(missing)}")


def register(name: str) -> None:
    """Tell this process's vLLM, under which `name` the layout is known to it from now on; may be called again."""
    ModelRegistry.register_model(ARCHITECTURE, ImageTokenQwen3)
    register_config_parser(name)(ReleasedConfig)
    register_model_loader(name)(ReleasedWeights)
