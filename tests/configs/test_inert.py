"""Options that cannot act are named, one sentence each; whatever can act, and every shipped recipe, is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.configs import load_run_config, load_warmstart_config
from blip3o_grpo.configs.inert import inert_options, inert_warmstart_options

CONFIGS = Path(__file__).parents[2] / "configs"
ONE = "every batch gets one optimiser step (num_iterations), so the ratio to the policy that drew is 1"
RATIO = f"{ONE} and never clipped"
LOSSES = "all completions have the same length, so grpo, dr_grpo, dapo and bnpo are the same loss"
TWO = ("trainer.num_iterations=2", "checkpoint.every_steps=10")
SEQUENCES = ("trainer.vllm_importance_sampling_mode=sequence_mask",)
GSPO = "trainer.importance_sampling_level=sequence"
CISPO = ("trainer.epsilon_high=5", "trainer.loss_type=cispo")
GOLD = "guards.gold=[guard]"
OFF = "use_adaptive_entropy is false"
GDPO = "trainer.multi_objective_aggregation=normalize_then_sum"
CASES = {
    ("trainer.epsilon=0.3",): RATIO,
    ("trainer.epsilon_high=0.28",): RATIO,
    ("trainer.loss_type=grpo",): LOSSES,
    ("trainer.loss_type=dr_grpo",): LOSSES,
    ("trainer.loss_type=bnpo",): LOSSES,
    (*TWO, "trainer.loss_type=bnpo"): LOSSES,
    ("trainer.delta=4.0",): RATIO,
    CISPO: f"{ONE}, where its gradient is that of dapo",
    ("trainer.loss_type=sapo",): f"{ONE}, where its gradient is that of dapo",
    ("trainer.sapo_temperature_pos=2.0",): "loss_type is dapo",
    (*TWO, "trainer.sapo_temperature_neg=2.0"): "loss_type is dapo",
    ("trainer.loss_type=vespo", "trainer.sapo_temperature_neg=2.0"): "loss_type is vespo",
    ("trainer.vespo_k_pos=1.0",): "loss_type is dapo",
    ("trainer.vespo_lambda_pos=1.0",): "loss_type is dapo",
    ("trainer.vespo_k_neg=1.0",): "loss_type is dapo",
    (*TWO, "trainer.loss_type=sapo", "trainer.vespo_lambda_neg=1.0"): "loss_type is sapo",
    (*SEQUENCES, "trainer.beta=0", GSPO): f"{ONE}, of tokens and of images",
    (*SEQUENCES, "trainer.use_bias_correction_kl=false", GSPO): f"{ONE}, of tokens and of images",
    ("trainer.entropy_coef_min=0.01",): OFF,
    ("trainer.entropy_coef_max=0.5",): OFF,
    ("trainer.entropy_coef_delta=0.01",): OFF,
    ("trainer.entropy_coef=0.01", "trainer.entropy_target=2.0"): OFF,
    ("trainer.ref_model_mixup_alpha=0.5",): "sync_ref_model is false",
    ("trainer.ref_model_sync_steps=5",): "sync_ref_model is false",
    ("trainer.ref_model_sync_steps=40", "trainer.sync_ref_model=True"): "ref_model_sync_steps=40 are not over before "
    "the last of max_steps=40",
    ("trainer.beta=0", "trainer.use_bias_correction_kl=False"): "with beta=0 there is no KL",
    (GDPO, "trainer.scale_rewards=batch"): "multi_objective_aggregation: normalize_then_sum divides by the standard "
    "deviation in the group, and then by the batch's",
    ("trainer.scale_rewards=none", "trainer.min_group_std=0.1"): "scale_rewards: none divides by no standard deviation",
    ("trainer.lr_scheduler_type=constant", "trainer.warmup_steps=5"): "lr_scheduler_type: constant has none; write "
    "constant_with_warmup",
    ("guards.reward_collapse=ignore", "guards.reward_share=0.3"): "guards.reward_collapse is ignore",
    (
        "guards.reward_collapse=ignore",
        "guards.no_spread=ignore",
        "guards.window_steps=9",
    ): "guards.reward_collapse and guards.no_spread are ignore",
    ("guards.gold_fall=rollback",): "guards.gold names no reward",
    ("guards.non_finite=stop", "guards.max_skips=1"): "guards.non_finite and guards.mismatch are stop, so no step is "
    "skipped",
    ("trainer.beta=0", "warnings.kl_budget=0.1"): "with trainer.beta=0 the KL to the start is not measured",
    ("rollout.guidance_scale=1", "rollout.guidance_interval=[0.5, 1.0]"): "rollout.guidance_scale=1 is no guidance",
    ("rollout.record_every_steps=0", "rollout.record_images=all"): "rollout.record_every_steps=0 records none",
    (
        "rewards.0.replicas=1",
        "rewards.1.replicas=2",
        "cluster.rewards=3",
    ): "every reward has replicas of its own",
    ("checkpoint.every_steps=15", "checkpoint.keep_best=2"): "no checkpoint (every 15 steps) is of a step that is "
    "evaluated (every 20), so none competes",
}
"""Overrides, of which the last cannot act, and why."""
ACTING = [
    (),
    ("trainer.epsilon=0.2", "trainer.loss_type=dapo"),  # the defaults
    ("trainer.scale_rewards=batch", "trainer.min_group_std=0.1"),
    (GDPO, "trainer.min_group_std=0.1"),
    (*TWO, "trainer.epsilon=0.3", "trainer.epsilon_high=0.4", "trainer.delta=4.0"),
    (*TWO, *CISPO),
    (*TWO, "trainer.loss_type=sapo", "trainer.sapo_temperature_pos=2.0", "trainer.sapo_temperature_neg=2.0"),
    ("trainer.loss_type=vespo", "trainer.vespo_k_pos=1.0", "trainer.vespo_k_neg=1.0", "trainer.vespo_lambda_neg=1.0"),
    ("trainer.loss_type=luspo", GSPO),
    (*SEQUENCES, "trainer.beta=0", "trainer.loss_type=luspo", GSPO),
    (GSPO, "trainer.beta=0"),  # weights of the sampler's difference are of tokens
    (*SEQUENCES, GSPO),  # the KL's factor is the image's
    (*SEQUENCES, "trainer.beta=0", "trainer.top_entropy_quantile=0.2", GSPO),
    (*SEQUENCES, *TWO, "trainer.beta=0", GSPO),
    ("trainer.entropy_coef=0.01", "trainer.off_policy_mask_threshold=0.5", "trainer.top_entropy_quantile=0.2"),
    ("trainer.use_adaptive_entropy=true", "trainer.entropy_target=2.0", "trainer.entropy_coef_max=0.5"),
    ("trainer.sync_ref_model=true", "trainer.ref_model_sync_steps=39", "trainer.ref_model_mixup_alpha=0.5"),
    ("trainer.adam_beta1=0.8", "trainer.adam_beta2=0.99", "trainer.adam_epsilon=1e-15"),
    (GDPO, "trainer.scale_rewards=none", "trainer.min_group_std=0.1", "trainer.scale_rewards=group"),
    (GDPO, "learn=[tokens,head]", "rollout.noises_per_completion=2", "trainer.scale_rewards=batch"),  # of the head
    ("rollout.guidance_scale=3", "rollout.guidance_interval=[0.5,1]"),
    ("trainer.warmup_steps=5",),  # the recipe's schedule is cosine
    ("trainer.lr_scheduler_type=constant_with_warmup", "trainer.warmup_steps=5"),
    ("guards.reward_share=0.3", "guards.window_steps=9", "guards.max_skips=1"),
    ("guards.reward_collapse=ignore", "guards.window_steps=9"),
    ("guards.no_spread=ignore", "guards.window_steps=9", "guards.reward_share=0.3"),
    ("guards.non_finite=stop", "guards.mismatch=skip", "guards.max_skips=1"),
    ("guards.mismatch=stop", "guards.max_skips=1"),
    ("warnings.kl_budget=0.1",),
    ("rollout.record_images=all",),
    ("rewards.0.replicas=1", "cluster.rewards=3"),
    ("checkpoint.every_steps=10", "checkpoint.keep_best=2"),
    ("checkpoint.every_steps=15", "checkpoint.keep_best=2", "evaluation.every_steps=0"),
    ("checkpoint.every_steps=15", "checkpoint.keep_best=2", "evaluation.every_steps=4", "rewards.1.weight=0", GOLD),
    ("rewards.1.weight=0", GOLD, "guards.gold_fall=rollback"),
    ("trainer.vllm_importance_sampling_mode=token_mask", "trainer.vllm_importance_sampling_clip_min=0.5"),
]


def test_every_option_that_cannot_act_is_named_with_the_reason():
    for overrides, reason in CASES.items():
        found = inert_options(load_run_config(CONFIGS / "tiny_ocr.yaml", overrides))
        assert found == [f"{overrides[-1]} changes nothing: {reason}"]


@pytest.mark.parametrize("overrides", ACTING, ids=str)
def test_options_that_act_and_defaults_are_not_named(overrides):
    assert inert_options(load_run_config(CONFIGS / "tiny_ocr.yaml", overrides)) == []


def test_a_common_step_of_checkpoints_and_evaluations_counts_only_before_the_last_one():
    """The last step is not evaluated by its number: `after` is its evaluation, when all checkpoints are there."""
    at = ("checkpoint.every_steps=8", "checkpoint.keep_best=2", "evaluation.every_steps=20")
    assert len(inert_options(load_run_config(CONFIGS / "tiny_ocr.yaml", [*at, "trainer.max_steps=40"]))) == 1
    assert inert_options(load_run_config(CONFIGS / "tiny_ocr.yaml", [*at, "trainer.max_steps=41"])) == []


def test_several_are_named_one_by_one():
    config = load_run_config(CONFIGS / "tiny_ocr.yaml", ["trainer.loss_type=grpo", "trainer.epsilon=5"])
    assert [sentence.split("=")[0] for sentence in inert_options(config)] == ["trainer.epsilon", "trainer.loss_type"]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_no_shipped_recipe_sets_one(name):
    path = CONFIGS / f"{name}.yaml"
    if name.endswith("warmstart"):
        assert inert_warmstart_options(load_warmstart_config(path)) == []
    else:
        assert inert_options(load_run_config(path)) == []


def test_a_warm_starts_options_of_parts_that_do_not_learn_are_named():
    path = CONFIGS / "blip3o_next_warmstart.yaml"

    def named(*overrides):
        given = ("labels=all", "anchor_weight=0.5", "condition_dropout=0.2", "condition_noise=0.1")
        return inert_warmstart_options(load_warmstart_config(path, [*given, *overrides]))

    ar = [f"{option} changes nothing: the AR part does not learn" for option in ("labels=all", "anchor_weight=0.5")]
    assert named("trains=[ar,sana]") == []
    assert named("trains=[sana]") == ar
    assert named("trains=[ar,sana]", "strategy=sequential") == ar
    assert named("trains=[ar,sana]", "strategy=sequential", "ar_steps=5") == []
    assert named("trains=[ar]") == [
        f"{option} changes nothing: the diffusion head does not learn"
        for option in ("condition_dropout=0.2", "condition_noise=0.1")
    ]


def test_it_is_known_before_torch_is_imported():
    code = "import sys, blip3o_grpo.configs.inert; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
