"""Every private or undocumented name of vLLM that we use: reason, upstream link, and the test that notices a change.

Importing this module imports no vLLM: the driver sets the variables of workers and never needs vLLM itself, and a name
from `PLACES` is imported when somebody asks for it here. A new vLLM is tried with `tests/rollout/test_vllm_seams.py`,
which looks at every name on its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from vllm import LLM
    from vllm.distributed.weight_transfer import ParamMeta as ParamMeta
    from vllm.distributed.weight_transfer import TrainerWeightTransferEngine as TrainerWeightTransferEngine
    from vllm.distributed.weight_transfer import WeightSource as WeightSource
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory as WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.base import TrainerInitInfo as TrainerInitInfo
    from vllm.distributed.weight_transfer.base import WeightTransferInitRequest as WeightTransferInitRequest
    from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest as WeightTransferUpdateRequest
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo as IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo as NCCLTrainerInitInfo
    from vllm.distributed.weight_transfer.packed_tensor import (
        DEFAULT_PACKED_BUFFER_SIZE_BYTES as DEFAULT_PACKED_BUFFER_SIZE_BYTES,
    )
    from vllm.model_executor.layers.logits_processor import LogitsProcessor as LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead as ParallelLMHead
    from vllm.model_executor.model_loader import register_model_loader as register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader as BaseModelLoader
    from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM as Qwen3ForCausalLM
    from vllm.model_executor.models.utils import maybe_prefix as maybe_prefix
    from vllm.transformers_utils.config import register_config_parser as register_config_parser
    from vllm.transformers_utils.config_parser_base import ConfigParserBase as ConfigParserBase
    from vllm.utils.network_utils import get_open_port as get_open_port

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_PLUGINS": "",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of a sampler, before vLLM is imported: no engine subprocess (weights could not be handed over), no plugins
of other packages (PaddleX registers one that fails), the model runner that `reload_weights` belongs to, no chatter.

https://github.com/vllm-project/vllm/issues/15349, https://github.com/vllm-project/vllm/pull/42673;
test_vllm_knows_our_variables
"""

PLACES = {
    # A model of our own: vLLM's Qwen3 with another head. Out-of-tree models are supported, their parts have no promise.
    # https://github.com/vllm-project/vllm/pull/3871; test_our_model_overrides_what_it_means_to
    "Qwen3ForCausalLM": "vllm.model_executor.models.qwen3",
    "ParallelLMHead": "vllm.model_executor.layers.vocab_parallel_embedding",
    "LogitsProcessor": "vllm.model_executor.layers.logits_processor",
    "maybe_prefix": "vllm.model_executor.models.utils",
    # The released folder's own layout, for configurations and for weights: nothing is copied or converted.
    # https://github.com/vllm-project/vllm/pull/24277, https://github.com/vllm-project/vllm/pull/21067,
    # https://github.com/vllm-project/vllm/issues/12363; test_our_layout_is_registered
    "register_config_parser": "vllm.transformers_utils.config",
    "ConfigParserBase": "vllm.transformers_utils.config_parser_base",
    "register_model_loader": "vllm.model_executor.model_loader",
    "BaseModelLoader": "vllm.model_executor.model_loader.base_loader",
    # Weights from GPU to GPU, the trainer's side: young, and still moving.
    # https://github.com/vllm-project/vllm/pull/48042, https://github.com/vllm-project/vllm/issues/43918;
    # test_the_weight_transfer_takes_our_side
    "ParamMeta": "vllm.distributed.weight_transfer",
    "TrainerWeightTransferEngine": "vllm.distributed.weight_transfer",
    "WeightSource": "vllm.distributed.weight_transfer",
    "WeightTransferTrainerFactory": "vllm.distributed.weight_transfer",
    "TrainerInitInfo": "vllm.distributed.weight_transfer.base",
    "WeightTransferInitRequest": "vllm.distributed.weight_transfer.base",
    "WeightTransferUpdateRequest": "vllm.distributed.weight_transfer.base",
    "IPCTrainerInitInfo": "vllm.distributed.weight_transfer.ipc_engine",
    "NCCLTrainerInitInfo": "vllm.distributed.weight_transfer.nccl_engine",
    "DEFAULT_PACKED_BUFFER_SIZE_BYTES": "vllm.distributed.weight_transfer.packed_tensor",
    "get_open_port": "vllm.utils.network_utils",
}
"""Where vLLM keeps what we import from inside it."""


def reload_weights(engine: LLM, weights: Callable[[], Iterable[tuple[str, torch.Tensor]]]) -> None:
    """`worker.model_runner.reload_weights`: put other weights, in the released names and shapes, into a running engine.

    vLLM's public update is the weight transfer, which needs GPUs and a trainer that is alive; a sampler that was
    restarted, or runs on CPUs, reads the object store. The function travels to the engine's own process by
    `collective_rpc`, which is this one (`ENVIRONMENT`). https://github.com/vllm-project/vllm/issues/5723,
    https://github.com/vllm-project/vllm/issues/32718; test_weights_can_be_reloaded_from_an_iterator
    """

    def reload(worker: Any) -> None:
        worker.model_runner.reload_weights(weights_iterator=weights())

    engine.collective_rpc(reload)


def __getattr__(name: str) -> Any:
    """A name from `PLACES`."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PLACES[name]), name)
