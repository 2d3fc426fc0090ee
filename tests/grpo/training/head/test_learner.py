"""The head's learner on a small random head: a reward of its latents rises, checkpoints are exact."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.decoding import load_head
from blip3o_grpo.policies.blip3o_next.denoising import denoise, path_noise
from blip3o_grpo.policies.tiny_world.architecture import random_policy
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, noise_seed
from blip3o_grpo.training.head.learner import HeadLearner
from blip3o_grpo.training.head.portions import portions
from blip3o_grpo.training.head.weights import FILE, head_of, trained_head
from blip3o_grpo.training.mismatch import MismatchError

MEMBERS, NOISES, PROMPTS = 2, 3, 2
FLOW = {"type": "flow_grpo", "window": 1, "epsilon": 0.1}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return random_policy(tmp_path_factory.mktemp("policy"), num_image_tokens=16)


def make(path, **head):
    """A learner whose hidden states hang on the tokens alone, and its run."""
    trainer = {"max_steps": 30, **head.pop("trainer", {})}
    config = RunConfig.model_validate(
        {
            "run_dir": "unused",
            "learn": ["head"],
            "prompts": {"train": "unused", "heldout": "unused"},
            "rewards": [{"name": "level", "weight": 1.0}],
            "rollout": {
                "prompts_per_step": PROMPTS,
                "group_size": MEMBERS,
                "noises_per_completion": NOISES,
                "num_diffusion_steps": 2,
                "noise": "independent",
            },
            "head": {"learning_rate": 1e-3, "micro_batch_size": 16, **head},
            "trainer": {"min_group_std": 0.0, **trainer},
        }
    )
    policy = BLIP3oNext.from_pretrained(path, parts=("ar", "head"))
    size = policy.config.hidden_size
    table = torch.randn(policy.config.vocab_size, size, generator=torch.Generator().manual_seed(1))

    def hidden_states(prompt_ids, tokens):
        return torch.cat([table[[ids[-1] for ids in prompt_ids]][:, None], table[tokens]], 1)

    return HeadLearner(policy, hidden_states, config, Accelerator(cpu=True)), config


def draw(learner, config, step):
    """A batch that the learner's head painted; the reward is the mean of the last latents."""
    policy, method = learner.objective.old or learner.policy, config.head.method
    how = method if method.type == "flow_grpo" else None
    space, generator, groups = policy.image_tokens, torch.Generator().manual_seed(step), []
    for number in range(PROMPTS):
        prompt, rollouts = Prompt(f"p{number}", "a prompt"), []
        tokens = torch.randint(space.start, space.stop, (MEMBERS, space.num_tokens), generator=generator)
        hidden = learner.hidden_states([[7]] * MEMBERS, tokens).repeat_interleave(NOISES, 0)
        seeds = [
            noise_seed(config.seed, step, prompt.id, member, "independent", k, NOISES)
            for member in range(MEMBERS)
            for k in range(NOISES)
        ]
        latents = denoise(policy, hidden, path_noise(policy, seeds, how), 2, stochastic=how)
        for place, latent in enumerate(latents):
            completion = Completion(tokens[place // NOISES].numpy(), np.zeros(space.num_tokens), step - 1, 0)
            score = latent[-1].mean().item()
            rollouts.append(Rollout(completion, np.zeros((1, 1, 3), np.uint8), {"level": score}, {}, latent.numpy()))
        groups.append(RolloutGroup(prompt, [7], tuple(rollouts), NOISES))
    return RolloutBatch(tuple(groups), {})


def test_no_more_images_at_once_than_are_asked_for(path):
    """Also where a completion has more; what is learnt from each stays the same."""
    learner, config = make(path)
    batch = draw(learner, config, 1)
    advantages = [np.arange(1.0, MEMBERS * NOISES + 1).reshape(MEMBERS, NOISES) for _ in batch.groups]
    whole = list(portions(batch.groups, advantages, 1, config, NOISES))
    for size in (NOISES - 1, 1, 0):
        parts = list(portions(batch.groups, advantages, 1, config, size))
        assert max(len(part.which) for part in parts) == max(size, 1)
        for name in ("latents", "advantages"):
            torch.testing.assert_close(
                torch.cat([getattr(part, name) for part in parts]), torch.cat([getattr(part, name) for part in whole])
            )
        for name in ("noise_seeds", "learning_seeds"):
            assert sum((getattr(part, name) for part in parts), []) == sum((getattr(part, name) for part in whole), [])
        assert all(len(part.tokens) == len(part.prompt_ids) > part.which.max() for part in parts)


def mean_reward(batch):
    return np.mean([rollout.rewards["level"] for group in batch.groups for rollout in group.rollouts])


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"method": FLOW},
        slow({"method": {"type": "nft", "beta": 0.1}}),
        slow({"method": {"type": "nft", "old_decay": 0.5, "old_decay_growth": 0.1}}),
        slow({"method": FLOW | {"sampler": "cps", "noise_level": 0.8}}),
        slow({"lora": {"rank": 4}}),
        slow({"guided": False}),
        slow({"credit": "shared"}),
    ],
)
def test_the_reward_rises(path, head):
    learner, config = make(path, **head)
    frozen = {name: value.clone() for name, value in learner.policy.sana.named_parameters() if not value.requires_grad}
    rewards = []
    for step in range(1, 5):
        batch = draw(learner, config, step)
        metrics, reason = learner.learn(batch, step)
        assert reason is None and metrics["head/skipped"] == 0
        assert all(np.isfinite(value) for value in metrics.values())
        if head.get("method", {}).get("type") == "flow_grpo":
            assert metrics["head/mismatch"] < 1e-4
        rewards.append(mean_reward(batch))
    assert rewards[-1] > rewards[0] + 0.1, rewards
    for name, value in frozen.items():
        assert torch.equal(value, dict(learner.policy.sana.named_parameters())[name]), name


@pytest.mark.parametrize(
    "head",
    [
        {"method": {"type": "nft", "old_decay": 0.9, "old_decay_growth": 0.1}, "trainer": {"ema": {"decay": 0.5}}},
        slow({"method": FLOW}),
        slow({"lora": {"rank": 4}, "trainer": {"ema": {"decay": 0.5}}}),
    ],
)
def test_a_resumed_learner_goes_on_exactly(path, tmp_path, head):
    learner, config = make(path, **head)
    for step in (1, 2):
        learner.learn(draw(learner, config, step), step)
    learner.save(tmp_path)
    again, _ = make(path, **head)
    again.load(tmp_path)
    for one in (learner, again):
        one.learn(draw(one, config, 3), 3)
    for of in ("drawing_weights", "measured_weights"):
        for name, value in getattr(learner, of)().items():
            assert torch.equal(value, getattr(again, of)()[name]), name


@pytest.mark.parametrize("head", [{}, {"lora": {"rank": 4}}])
def test_a_checkpoints_head_is_the_learners(path, tmp_path, head):
    learner, config = make(path, **head)
    learner.learn(draw(learner, config, 1), 1)
    learner.save(tmp_path)
    weights = trained_head(head_of(BLIP3oNext.from_pretrained(path)), tmp_path / FILE, config.head.lora)
    plain = BLIP3oNext.from_pretrained(path)
    before = {name: value.clone() for name, value in plain.sana.state_dict().items()}
    load_head(plain, weights)
    assert any(not torch.equal(before[name], value) for name, value in plain.sana.state_dict().items())
    for name, value in learner.measured_weights().items():
        part, _, rest = name.partition(".")
        assert torch.equal(getattr(plain, part).state_dict()[rest], value), name


def test_the_size_of_a_forward_pass_changes_nothing(path):
    found = []
    for size in (8, 1000):
        learner, config = make(path, micro_batch_size=size, max_grad_norm=1e9)
        metrics, _ = learner.learn(draw(learner, config, 1), 1)
        found.append(metrics)
    for name in found[0]:
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4, abs=1e-6), name


def test_groups_without_difference_move_nothing(path):
    learner, config = make(path, method={"type": "nft", "kl": 0.0})
    batch = draw(learner, config, 1)
    for group in batch.groups:
        for rollout in group.rollouts:
            rollout.rewards["level"] = 0.5
    before = {name: value.clone() for name, value in learner.drawing_weights().items()}
    metrics, _ = learner.learn(batch, 1)
    assert metrics["head/grad_norm"] == 0
    assert all(torch.equal(before[name], value) for name, value in learner.drawing_weights().items())


def test_a_number_that_is_none_skips_the_update(path):
    learner, config = make(path)
    batch = draw(learner, config, 1)
    batch.groups[0].rollouts[0].latents[:] = np.nan
    before = {name: value.clone() for name, value in learner.drawing_weights().items()}
    metrics, reason = learner.learn(batch, 1)
    assert reason and metrics["head/skipped"] == 1
    assert all(torch.equal(before[name], value) for name, value in learner.drawing_weights().items())


def test_a_decoder_that_paints_otherwise_is_noticed(path):
    learner, config = make(path, method=FLOW)
    batch = draw(learner, config, 1)
    for group in batch.groups:
        for rollout in group.rollouts:
            rollout.latents[1] += 0.5
    before = {name: value.clone() for name, value in learner.drawing_weights().items()}
    metrics, error = learner.learn(batch, 1)
    assert isinstance(error, MismatchError) and "trainer.mismatch_bound=0.01" in str(error)
    assert metrics["head/skipped"] == 1 and metrics["head/mismatch"] > 0.01
    assert all(torch.equal(before[name], value) for name, value in learner.drawing_weights().items())
