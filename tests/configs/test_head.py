"""What a head that is to learn cannot do together is refused before anything loads, with the key."""

import pytest

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.configs.inert import inert_options

RECIPE = "configs/tiny_both.yaml"
FLOW = "head.method={type: flow_grpo}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learn=[head, head]"], "learn: 'head' is named twice"),
        (["learn=[]"], "learn"),
        (["learn=[head, tail]"], "learn"),
        (["rollout.noises_per_completion=1"], "rollout.noises_per_completion is 1.*give 2 or more"),
        (["rollout.max_staleness=1"], "rollout.max_staleness=1: .*give 0"),
        (["trainer.parallel={type: fsdp2}"], "trainer.parallel.type=fsdp2"),
        (["head.method={type: flow_grpo, window: 2}"], "head.method.window=2 of .* give 1 or less"),
        ([FLOW, "rollout.num_diffusion_steps=1"], "rollout.num_diffusion_steps=1: .*needs 2 or more"),
        ([FLOW, "head.guided=false"], "head.guided=false: .*rollout.guidance_scale=1"),
        (["head.method={type: flow_grpo, sampler: cps, noise_level: 1.5}"], "head.method.noise_level=1.5.*1 or less"),
        (["head.method={type: flow}"], "head.method"),
        (["head.method={type: flow_grpo, beta: 1}"], "unknown key .*beta"),
        (["head.method={beta: 0.1}"], r"'head.method' is a section .* `type`; give type: nft or flow_grpo$"),
        (["head.method={type: flow_grpo, window: 0}"], r"'head.method.window' is 0; give 1 or more"),
        (["head.method={type: flow_grpo, windw: 1}"], r"unknown key 'head.method.windw'; did you mean 'window'"),
        (["learn=[head]", "trainer.sync_ref_model=true"], "trainer.sync_ref_model: .*leave it out"),
        (["learn=[head]", "trainer.num_iterations=2", "checkpoint.every_steps=24"], "trainer.num_iterations: .*give 1"),
    ],
)
def test_what_cannot_be_learnt_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_run_config(RECIPE, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["head.credit=shared", "rollout.noises_per_completion=1"],
        [FLOW, "head.guided=false", "rollout.guidance_scale=1"],
        ["head.guided=false"],
        ["learn=[tokens]", "rollout.max_staleness=1"],
    ],
)
def test_what_can_is_taken(overrides):
    load_run_config(RECIPE, overrides)


def test_options_of_the_half_that_stays_are_named():
    tokens = inert_options(load_run_config(RECIPE, ["learn=[tokens]", "head.learning_rate=1e-3", FLOW]))
    assert any(sentence.startswith("head.learning_rate=0.001 changes nothing") for sentence in tokens)
    assert any(sentence.startswith("head.method={'type': 'flow_grpo'} changes nothing") for sentence in tokens)
    drawing = ["trainer.vllm_importance_sampling_mode=token_mask", "warnings.kl_budget=0.1"]
    head = inert_options(load_run_config(RECIPE, ["learn=[head]", *drawing]))
    for option in ("trainer.beta=0.03", *drawing):
        assert any(sentence.startswith(f"{option} changes nothing: learn does not") for sentence in head), option
    assert not [sentence for sentence in inert_options(load_run_config(RECIPE)) if "learn does not" in sentence]
