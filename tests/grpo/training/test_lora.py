"""LoRA runs: only adapters learn, everyone else sees merged weights, the reference is the same model without them."""

import copy

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from transformers import Qwen3ForCausalLM

from blip3o_grpo.configs.training import LoRASection
from blip3o_grpo.policies import BLIP3oNext, load_config
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.checkpoint_weights import load_trained
from blip3o_grpo.training.lora import merge_adapter, peft_config

LORA = {"lora": {"rank": 8, "alpha": 16}, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def trained(make_config, run_toy):
    """Twenty steps of a LoRA run on the toy reward, with gradient checkpointing."""
    config = make_config(
        trainer={"max_steps": 20, "micro_batch_size": 4, "gradient_checkpointing": True, **LORA},
        checkpoint={"every_steps": 10},
    )
    return (*run_toy(config), config)


def test_merging_equals_pefts_own_merge(policy_path):
    section = LoRASection(rank=4, alpha=6.0, targets=("q_proj", "down_proj"))
    ar = Qwen3ForCausalLM(load_config(policy_path)).eval()
    names = list(ar.state_dict())
    model = get_peft_model(ar, peft_config(section))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    merged = merge_adapter(model.state_dict(), section)
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    assert list(merged) == names == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-6, rtol=0)


def test_a_lora_run_learns_and_agrees_with_its_sampler(trained):
    _, pipeline, metrics, _ = trained
    rewards = [line["reward/mean"] for line in metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert pipeline.versions == list(range(20))
    assert max(line["mismatch/mean_abs"] for line in metrics) < 1e-5  # adapter in the trainer, merged in the sampler


def test_only_adapters_learn_and_the_reference_is_the_start(trained, policy_path):
    trainer, _, metrics, _ = trained
    start = BLIP3oNext.from_pretrained(policy_path, parts=("ar",)).ar.state_dict()
    base = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in trainer.model.state_dict().items()
        if ".lora_" not in name
    }
    assert base.keys() == start.keys()
    for name, tensor in start.items():
        torch.testing.assert_close(base[name], tensor, atol=0, rtol=0)
    assert trainer.ref_model is None
    assert metrics[0]["kl/reference"] == pytest.approx(0, abs=1e-7)
    assert metrics[-1]["kl/reference"] > 0.001


def test_the_checkpoint_holds_the_adapter_and_loads_as_plain_weights(trained, policy_path):
    trainer, _, _, config = trained
    checkpoint = RunFolder(config.run_dir).newest_checkpoint()
    assert not (checkpoint / "model.safetensors").exists()
    with safe_open(checkpoint / "adapter_model.safetensors", "pt") as file:
        assert file.keys() and all(".lora_" in name for name in file.keys())  # noqa: SIM118 - no mapping
    ar = BLIP3oNext.from_pretrained(policy_path, parts=("ar",)).ar
    names = list(ar.state_dict())
    ar = load_trained(ar, checkpoint, config)
    merged = merge_adapter(trainer.model.state_dict(), config.trainer.lora)
    assert type(ar) is Qwen3ForCausalLM and list(ar.state_dict()) == names
    for name, tensor in ar.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=0)


def test_a_lora_run_resumes_exactly(make_config, run_toy):
    options = {"trainer": {"max_steps": 4, "ema": {"decay": 0.5}, **LORA}, "checkpoint": {"every_steps": 2}}
    trainer, _, whole = run_toy(make_config(**options))
    config = make_config(**options)
    with pytest.raises(KeyboardInterrupt):
        run_toy(config, stop_at=4)
    resumed, pipeline, metrics = run_toy(config)
    assert pipeline.versions == [2, 3]
    for ours, theirs in zip(metrics, whole, strict=True):
        for name in ("reward/mean", "kl/reference", "grad_norm", "loss"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), (ours["step"], name)
    for name, average in trainer.averaged.averages.items():
        torch.testing.assert_close(resumed.averaged.averages[name], average, atol=1e-4, rtol=0)


def test_the_frozen_base_of_a_bfloat16_run_is_bfloat16_and_its_adapter_float32(make_config, run_toy):
    config = make_config(
        policy={"dtype": "bfloat16"}, trainer={"max_steps": 1, "mismatch_bound": 0.5, "lora": {"rank": 4}}
    )
    trainer, pipeline, metrics = run_toy(config)
    dtypes = {name: parameter.dtype for name, parameter in trainer.model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if ".lora_" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if ".lora_" not in name} == {torch.bfloat16}
    assert pipeline.versions == [0] and metrics[0]["grad_norm"] > 0
