"""Every private name of vLLM that we use is where we import it from and still takes what we give it.

vLLM is looked at in a process of its own: importing it starts threads and changes logging.
"""

import json
import os
import subprocess
import sys

import pytest

from blip3o_grpo.rollout import vllm_seams
from blip3o_grpo.rollout.vllm_seams import ENVIRONMENT, PLACES

LOOK = """
import inspect, json
from blip3o_grpo.rollout import vllm_seams
from blip3o_grpo.rollout.vllm_seams import PLACES
import vllm.envs
from vllm import LLM, ModelRegistry
from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from blip3o_grpo.rollout.weights.transfer import SamplerClient
from blip3o_grpo.rollout.workers import vllm_model

def names(function):
    return list(inspect.signature(function).parameters)

def public(cls):
    return sorted(name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name)))

seams = {name: getattr(vllm_seams, name) for name in PLACES}
vllm_model.register("seams_test")
vllm_model.register("seams_test")
from vllm.model_executor.model_loader import get_model_loader
from vllm.config import LoadConfig
from vllm.transformers_utils.config import get_config_parser
print(json.dumps({
    "found": sorted(seams),
    "variables": sorted(vllm.envs.environment_variables),
    "reload_weights": names(GPUModelRunner.reload_weights),
    "collective_rpc": names(LLM.collective_rpc),
    "qwen_init": names(seams["Qwen3ForCausalLM"].__init__),
    "qwen_source": inspect.getsource(seams["Qwen3ForCausalLM"]),
    "head": names(seams["ParallelLMHead"].__init__),
    "processor": names(seams["LogitsProcessor"].__init__),
    "loader": type(get_model_loader(LoadConfig(load_format="seams_test"))).__name__,
    "loader_wants": sorted(seams["BaseModelLoader"].__abstractmethods__),
    "parser": type(get_config_parser("seams_test")).__name__,
    "parser_wants": sorted(seams["ConfigParserBase"].__abstractmethods__),
    "known": vllm_model.ARCHITECTURE in ModelRegistry.get_supported_archs(),
    "client_wants": public(VLLMWeightSyncClient),
    "client_has": public(SamplerClient),
    "source_wants": sorted(seams["WeightSource"].__abstractmethods__),
    "trainer_init": names(seams["WeightTransferTrainerFactory"].trainer_init),
    "engine_has": public(seams["TrainerWeightTransferEngine"]),
    "meta": names(seams["ParamMeta"]),
    "nccl": names(seams["NCCLTrainerInitInfo"]),
    "ipc": names(seams["IPCTrainerInitInfo"]),
    "requests": [names(seams["WeightTransferInitRequest"]), names(seams["WeightTransferUpdateRequest"])],
    "chunk": seams["DEFAULT_PACKED_BUFFER_SIZE_BYTES"],
    "port": seams["get_open_port"](),
    "prefix": seams["maybe_prefix"]("model", "lm_head"),
}))
"""


@pytest.fixture(scope="module")
def found():
    """What vLLM says of itself."""
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}
    )
    assert looked.returncode == 0, looked.stderr[-3000:]
    return json.loads(looked.stdout.splitlines()[-1])


def test_no_vllm_is_imported_for_its_variables():
    code = "import sys, blip3o_grpo.rollout.vllm_seams; sys.exit('vllm' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="has no attribute 'LMHead'"):
        _ = vllm_seams.LMHead


def test_vllm_knows_our_variables(found):
    assert ENVIRONMENT.keys() <= set(found["variables"])


def test_weights_can_be_reloaded_from_an_iterator(found):
    assert found["reload_weights"][:2] == ["self", "weights_iterator"]
    assert found["collective_rpc"][:2] == ["self", "method"]


def test_our_model_overrides_what_it_means_to(found):
    assert found["qwen_init"] == ["self", "vllm_config", "prefix"]
    for line in ("self.lm_head = ParallelLMHead(", "self.logits_processor = LogitsProcessor(", "self.quant_config ="):
        assert line in found["qwen_source"]
    assert {"num_embeddings", "embedding_dim", "quant_config", "prefix"} <= set(found["head"])
    assert found["processor"][:2] == ["self", "vocab_size"]
    assert found["prefix"] == "model.lm_head"


def test_our_layout_is_registered(found):
    assert (found["loader"], found["parser"], found["known"]) == ("ReleasedWeights", "ReleasedConfig", True)
    assert found["loader_wants"] == ["download_model", "load_weights"]
    assert found["parser_wants"] == ["parse"]


def test_the_weight_transfer_takes_our_side(found):
    assert found["found"] == sorted(PLACES)
    assert set(found["client_wants"]) <= set(found["client_has"])
    assert set(found["source_wants"]) <= {"metadata", "__iter__"}
    assert found["trainer_init"] == ["init_info", "client", "source"]
    assert {"send_weights", "shutdown"} <= set(found["engine_has"])
    assert found["meta"] == ["name", "dtype", "shape"]
    assert {"rank", "master_address", "master_port", "world_size", "packed_buffer_size_bytes"} <= set(found["nccl"])
    assert {"rank", "packed", "packed_buffer_size_bytes"} <= set(found["ipc"])
    assert found["requests"] == [["init_info"], ["update_info"]]
    assert found["chunk"] > 0 and found["port"] > 0
