"""Options of the optimisation that cannot act together are refused with the reason and what to write instead."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.configs.training import TrainerSection

RECIPE = Path(__file__).parents[2] / "configs" / "tiny_ocr.yaml"
TWO = "trainer.num_iterations=2"
LUSPO, SEQUENCE = "trainer.loss_type=luspo", "trainer.importance_sampling_level=sequence"
MIN_LR = "trainer.lr_scheduler_type=cosine_with_min_lr"
ADAPTIVE = "trainer.use_adaptive_entropy=true"
MOVING = "trainer.sync_ref_model=true"
REFUSED = [
    ((TWO,), "checkpoint.every_steps=25, its default, is no multiple of trainer.num_iterations=2,", "give 24 or 26"),
    (
        ("trainer.num_iterations=3",),
        "trainer.max_steps=40 is no multiple of trainer.num_iterations=3,",
        "give 39 or 42",
    ),
    (
        ("trainer.num_iterations=4", "checkpoint.every_steps=20", "evaluation.every_steps=2"),
        "evaluation.every_steps=2 is no multiple of trainer.num_iterations=4,",
        "; give 4",
    ),
    (("trainer.num_iterations=0",), "'trainer.num_iterations' is 0", "give 1 or more"),
    (("trainer.steps_per_generation=2",), "every optimiser step learns from a whole batch", "trainer.num_iterations"),
    (("trainer.num_generations=2",), "unknown key 'trainer.num_generations'", "give rollout.group_size"),
    (("trainer.gradient_accumulation_steps=2",), "unknown key", "give trainer.micro_batch_size"),
    (("trainer.loss_type=sapo", "trainer.epsilon=0.3"), "trainer.epsilon: loss_type sapo", "leave it out"),
    (("trainer.loss_type=sapo", "trainer.delta=3"), "trainer.delta: loss_type sapo", "leave it out"),
    (("trainer.loss_type=vespo", "trainer.epsilon_high=0.3"), "trainer.epsilon_high: loss_type vespo", "leave it out"),
    (("trainer.loss_type=cispo", "trainer.epsilon=0.3"), "trainer.epsilon: loss_type cispo", "leave it out"),
    (
        ("trainer.loss_type=cispo", "trainer.epsilon_high=5", "trainer.delta=9"),
        "trainer.delta: loss_type cispo",
        "leave",
    ),
    (("trainer.loss_type=cispo",), "trainer.epsilon_high is not given", "give 5"),
    (("trainer.loss_type=cispo", "trainer.epsilon_high=0.28"), "trainer.epsilon_high is 0.28", "give 5"),
    (("trainer.delta=1.2",), "trainer.delta is 1.2, where positive", "give more than 1.2"),
    (("trainer.delta=1.2", "trainer.epsilon_high=0.5"), "1 + epsilon_high is 1.5", "give more than 1.5"),
    (("trainer.delta=0.9",), "'trainer.delta' is 0.9", "give more than 1"),
    ((LUSPO,), "trainer.importance_sampling_level is token", "give sequence"),
    (("trainer.loss_type=vespo", SEQUENCE), "trainer.importance_sampling_level is sequence", "give token"),
    (
        ("trainer.loss_type=vespo", "trainer.vllm_importance_sampling_mode=sequence_truncate"),
        "trainer.vllm_importance_sampling_mode is sequence_truncate",
        "give token_truncate",
    ),
    (("trainer.loss_type=gspo",), "'trainer.loss_type' is 'gspo'", "'luspo' or 'vespo'"),
    ((ADAPTIVE, "trainer.entropy_coef_min=0.1"), "trainer.entropy_coef is 0,", "give 0.1"),
    ((ADAPTIVE, "trainer.entropy_coef=2"), "trainer.entropy_coef is 2,", "give 1"),
    ((ADAPTIVE, "trainer.entropy_coef_min=2"), "trainer.entropy_coef_min is 2, more than entropy_coef_max=1", ""),
    (("trainer.entropy_coef=-0.1",), "'trainer.entropy_coef' is -0.1", "give 0 or more"),
    (("trainer.top_entropy_quantile=0",), "'trainer.top_entropy_quantile' is 0", "give more than 0"),
    (("trainer.off_policy_mask_threshold=0",), "'trainer.off_policy_mask_threshold' is 0", "give more than 0"),
    ((MOVING, "trainer.beta=0"), "trainer.sync_ref_model: with beta=0 there is no reference", "give beta"),
    ((MOVING, "trainer.lora.rank=4"), "trainer.sync_ref_model: with lora", "leave one of them out"),
    ((MOVING, "trainer.parallel.type=deepspeed"), "trainer.sync_ref_model: not with", "give fsdp2 or ddp"),
    ((MIN_LR,), "trainer.lr_scheduler_kwargs: lr_scheduler_type cosine_with_min_lr needs one of", "min_lr_rate: 0.1"),
    (
        (MIN_LR, "trainer.lr_scheduler_kwargs={min_lr: 0, min_lr_rate: 0.1}"),
        "needs one of min_lr and min_lr_rate",
        "min_lr_rate: 0.1",
    ),
    ((MIN_LR, "trainer.lr_scheduler_kwargs.min_lr=1"), "more than learning_rate=0.0006", "give 0.0006 or less"),
    (("trainer.lr_scheduler_kwargs.min_lr=0",), "lr_scheduler_type cosine has no smallest", "cosine_with_min_lr"),
    ((MIN_LR, "trainer.lr_scheduler_kwargs.min=0"), "unknown key 'trainer.lr_scheduler_kwargs.min'", "'min_lr'"),
    (("trainer.adam_beta1=1",), "'trainer.adam_beta1' is 1", "give less than 1"),
    (("trainer.adam_epsilon=0",), "'trainer.adam_epsilon' is 0", "give more than 0"),
]
TAKEN = [
    (TWO, "checkpoint.every_steps=10"),
    (TWO, "checkpoint.every_steps=10", "evaluation.every_steps=0"),
    ("trainer.loss_type=cispo", "trainer.epsilon_high=1"),
    ("trainer.delta=1.21",),
    (LUSPO, SEQUENCE),
    ("trainer.loss_type=grpo", SEQUENCE, "trainer.epsilon=0.0003", "trainer.epsilon_high=0.0004"),
    ("trainer.loss_type=sapo", SEQUENCE),
    (ADAPTIVE, "trainer.entropy_coef=0.1", "trainer.entropy_coef_min=0.1", "trainer.entropy_coef_max=0.1"),
    ("trainer.entropy_coef=2",),  # its bounds are those of the steering
    (MIN_LR, "trainer.lr_scheduler_kwargs.min_lr=2e-4"),
    (MIN_LR, "trainer.lr_scheduler_kwargs.min_lr_rate=0"),
    (MOVING,),
]
SAME_AS_TRL = [
    name
    for name in TrainerSection.model_fields
    if name.startswith(("adam_", "entropy_", "sapo_", "vespo_")) and name != "entropy_band"
] + [
    "delta",
    "epsilon",
    "epsilon_high",
    "importance_sampling_level",
    "loss_type",
    "num_iterations",
    "off_policy_mask_threshold",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "sync_ref_model",
    "top_entropy_quantile",
    "use_adaptive_entropy",
    "use_bias_correction_kl",
]
"""Options with TRL's defaults, so that a recipe without them is what it was before there were any."""


@pytest.mark.parametrize(("overrides", "said", "instead"), REFUSED, ids=str)
def test_what_cannot_act_is_refused_with_the_reason_and_what_to_write(overrides, said, instead):
    with pytest.raises(ConfigError) as refused:
        load_run_config(RECIPE, overrides)
    message = str(refused.value)
    assert said in message and instead in message.partition(said)[2] and "\n" not in message


@pytest.mark.parametrize("overrides", TAKEN, ids=str)
def test_what_can_act_is_taken(overrides):
    load_run_config(RECIPE, overrides)


def test_defaults_are_those_of_trl():
    code = (
        "import json, sys, blip3o_grpo.training.trl_seams\nfrom dataclasses import fields\nfrom trl import GRPOConfig\n"
        "print(json.dumps({field.name: field.default for field in fields(GRPOConfig) if field.name in sys.argv[1:]}))"
    )
    said = subprocess.run([sys.executable, "-c", code, *SAME_AS_TRL], capture_output=True, text=True, check=True)
    theirs = json.loads(said.stdout.splitlines()[-1])
    assert theirs == {name: TrainerSection.model_fields[name].default for name in SAME_AS_TRL}
