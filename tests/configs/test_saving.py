"""Options that save images and cannot act together are refused with the reason."""

import pytest

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.configs.inert import inert_options

BASE = """
run_dir: run
prompts: {{train: a.txt, heldout: b.txt}}
rewards: [{{name: geneval, options: {{score: strict}}}}, {{name: ocr, weight: 0}}]
learn: [{learn}]
cluster: {{trainers: {trainers}}}
rollout: {{{rollout}}}
trainer: {{{trainer}}}
"""


def load(tmp_path, rollout="", trainer="", learn="tokens", trainers=1):
    for key, value in (("prompts_per_step", 4), ("group_size", 8)):
        if key not in rollout:
            rollout = f"{key}: {value}, {rollout}"
    if "max_steps" not in trainer:
        trainer = f"max_steps: 4, {trainer}"
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE.format(rollout=rollout, trainer=trainer, learn=learn, trainers=trainers))
    return load_run_config(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollout": "subset_size: 9"}, r"rollout.subset_size=9: a group has 8 members.*give 2 to 7"),
        ({"rollout": "subset_size: 8"}, r"rollout.subset_size=8: a group has 8 members"),
        ({"rollout": "subset_size: 1"}, r"rollout.subset_size"),
        ({"rollout": "subset_size: 4", "learn": "tokens, head"}, r"rollout.subset_size: the diffusion head learns"),
        ({"rollout": "replay: {groups_per_step: 1}", "learn": "head"}, r"rollout.replay: the diffusion head learns"),
        ({"rollout": "replay: {groups_per_step: 4}"}, r"groups_per_step=4: of rollout.prompts_per_step=4 groups none"),
        (
            {"rollout": "replay: {groups_per_step: 1}", "trainers": 2},
            r"=1 does not divide over cluster.trainers=2; give 2",
        ),
        (
            {"rollout": "replay: {groups_per_step: 1}, max_staleness: 1"},
            r"rollout.replay: with rollout.max_staleness=1 .* give one of the two",
        ),
        ({"rollout": "dynamic_sampling: {outcome: genevall}"}, r"no reward 'genevall'; did you mean 'geneval'\?"),
        ({"rollout": "dynamic_sampling: {outcome: x, max_rounds: 0}"}, r"rollout.dynamic_sampling.max_rounds"),
        ({"rollout": "curriculum: {uniform_share: 0}"}, r"rollout.curriculum.uniform_share"),
        ({"rollout": "curriculum: {uniform_share: 1}"}, r"rollout.curriculum.uniform_share"),
        (
            {"rollout": "curriculum: {uniform_share: 0.9}"},
            r"uniform_share=0.9: of rollout.prompts_per_step=4 .*give 0.75",
        ),
        (
            {"rollout": "curriculum: {}, prompts_per_step: 1"},
            r"uniform_share=0.5: of rollout.prompts_per_step=1 .*; give more prompts",
        ),
        (
            {"rollout": "replay: {groups_per_step: 1}, prompts_per_step: 2", "trainers": 2},
            r"a rank has one group only, so leave it out",
        ),
        (
            {"rollout": "replay: {groups_per_step: 3}, curriculum: {}"},
            r"groups_per_step=3: with rollout.curriculum.uniform_share=0.5 .* in turn; give 2 or less",
        ),
        (
            {"rollout": "replay: {groups_per_step: 2}, curriculum: {uniform_share: 0.6}", "trainers": 2},
            r"prompts that come in turn; leave one of the two out",
        ),
        (
            {"rollout": "replay: {groups_per_step: 1}", "trainer": "loss_type: vespo"},
            r"loss_type=vespo multiplies the weights",
        ),
        ({"rollout": "replay: {groups_per_step: 4}"}, r"groups_per_step=4: .* none would be new; give 3 or less"),
        ({"rollout": "subset_size: 2, group_size: 2"}, r"subset_size=2: .*; give a larger group"),
        ({"trainer": "entropy_band: [true, 2], entropy_coef: 0.1"}, r"entropy_band.*true or false"),
        ({"trainer": "entropy_band: [2, 1], entropy_coef: 0.1"}, r"trainer.entropy_band: \[2.0, 1.0\] is no band"),
        ({"trainer": "entropy_band: [1, 2]"}, r"trainer.entropy_band: entropy_coef is 0"),
        (
            {"trainer": "entropy_band: [1, 2], entropy_coef: 0.1, use_adaptive_entropy: true"},
            r"trainer.entropy_band: use_adaptive_entropy steers",
        ),
        (
            {"rollout": "max_staleness: 1", "trainer": "vllm_importance_sampling_mode: sequence_mask"},
            r"rollout.max_staleness=1 needs a loss that corrects token by token",
        ),
        ({"rollout": "max_staleness: 1", "trainer": "num_iterations: 2"}, r"would be 2 updates behind"),
    ],
    ids=str,
)
def test_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load(tmp_path, **options)
    assert "\n" not in str(refused.value)


def test_micro_batches_divide_what_is_learnt_from(tmp_path):
    assert load(tmp_path, "subset_size: 6", "micro_batch_size: 12").rollout.learnt_per_step == 24
    with pytest.raises(ConfigError, match="micro_batch_size=16 does not divide the 24 rollouts"):
        load(tmp_path, "subset_size: 6", "micro_batch_size: 16")


def test_images_of_a_step_are_those_that_are_drawn(tmp_path):
    rollout = load(tmp_path, "replay: {groups_per_step: 1}, subset_size: 4").rollout
    assert (rollout.images_per_step, rollout.completions_per_step, rollout.learnt_per_step) == (24, 24, 16)


def test_nothing_is_idle_or_chosen_by_default(tmp_path):
    config = load(tmp_path, trainer="lr_scheduler_type: constant")
    assert not config.rollout.selects and not [line for line in inert_options(config) if "rollout." in line]


def test_replay_in_a_run_of_one_batch_is_told(tmp_path):
    idle = inert_options(load(tmp_path, "replay: {groups_per_step: 1}", "num_iterations: 5, max_steps: 5"))
    assert [line for line in idle if "rollout.replay" in line and "one batch of rollouts" in line]


def test_a_default_that_does_not_fit_is_called_one(tmp_path):
    with pytest.raises(ConfigError, match=r"checkpoint.every_steps=\d+, its default, is no multiple of .*=3"):
        load(tmp_path, trainer="num_iterations: 3, max_steps: 6")
