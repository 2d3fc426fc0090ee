"""The section `trainer.parallel` in accelerate's and DeepSpeed's words, and what is refused before anything loads."""

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.training.parallel import check_parallel, deepspeed_config, parallel_arguments


def configure(make_config, parallel, **trainer):
    return make_config(trainer={"parallel": parallel, **trainer}, cluster={"gpus_per_trainer": 1, "trainers": 2})


def test_ddp_needs_no_arguments(make_config):
    assert parallel_arguments(make_config()) == {"gradient_checkpointing": False}


def test_fsdp2_shards_layers_and_keeps_parameter_names(make_config):
    section = {"type": "fsdp2", "cpu_offload": True, "reshard_after_forward": False}
    arguments = parallel_arguments(configure(make_config, section, gradient_checkpointing=True))
    assert arguments["fsdp"] is True and arguments["gradient_checkpointing"] is True
    plugin = arguments["fsdp_config"]
    assert plugin["version"] == 2 and plugin["transformer_layer_cls_to_wrap"] == ["Qwen3DecoderLayer"]
    assert (plugin["cpu_offload"], plugin["reshard_after_forward"]) == (True, False)


def test_transformers_understands_the_fsdp2_arguments(make_config, tmp_path):
    from accelerate.utils import FullyShardedDataParallelPlugin
    from trl import GRPOConfig

    arguments = parallel_arguments(configure(make_config, {"type": "fsdp2"}, gradient_checkpointing=True))
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, num_generations=2, **arguments)
    plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and not plugin.activation_checkpointing
    assert plugin.transformer_cls_names_to_wrap == ["Qwen3DecoderLayer"]
    assert "FULL" in str(plugin.state_dict_type)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_configurations_say_what_the_section_says(make_config, stage):
    section = {"type": "deepspeed", "zero_stage": stage, "offload_optimizer": True, "offload_weights": stage == 3}
    config = configure(make_config, section, gradient_checkpointing=True)
    arguments = parallel_arguments(config)
    assert arguments["gradient_checkpointing"] is True
    parsed = HfDeepSpeedConfig(arguments["deepspeed"])  # accelerate's reader
    assert (parsed.is_zero2(), parsed.is_zero3(), parsed.is_offload()) == (stage == 2, stage == 3, stage >= 2)
    zero = deepspeed_config(config.trainer.parallel)["zero_optimization"]
    assert zero["stage"] == stage and zero["offload_optimizer"]["device"] == "cpu"
    assert ("offload_param" in zero) == (stage == 3)
    # weights are gathered for samplers and checkpoints, which accelerate refuses without this key
    assert zero.get("stage3_gather_16bit_weights_on_model_save", False) == (stage == 3)


@pytest.mark.parametrize("parallel", [{"type": "fsdp2"}, {"type": "deepspeed"}])
def test_sharding_without_gpus_is_refused(make_config, parallel):
    with pytest.raises(ConfigError, match=rf"type={parallel['type']} needs GPUs"):
        check_parallel(make_config(trainer={"parallel": parallel}))


def test_deepspeed_that_is_not_installed_is_refused(make_config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"deepspeed is not installed here; `pip install '\.\[deepspeed\]'`"):
        check_parallel(configure(make_config, {"type": "deepspeed"}))


def test_averages_of_deepspeeds_weights_are_refused(make_config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"trainer\.ema"):
        check_parallel(configure(make_config, {"type": "deepspeed"}, ema={"decay": 0.9}))
