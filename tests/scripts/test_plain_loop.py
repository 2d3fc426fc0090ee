"""The plain loop of the benchmark computes what a run computes: log-probs, loss, updates, pictures, scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from blip3o_grpo.configs import RewardSection, RunConfig
from blip3o_grpo.policies import random_policy
from blip3o_grpo.rank import run_training
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.trainer import ImageGRPOTrainer
from scripts.plain_loop.loop import PlainLoop, Setting, group_advantages, tuned
from scripts.plain_loop.scoring import ONE_BY_ONE, WAYS, Scoring
from tests.grpo.toy_pipeline import FakePipeline

WORDS = ("TAXI", "GO", "HOTELS", "X")
PROMPTS = [Prompt(id=word, text=f'a red sign that says "{word}"', metadata={}) for word in WORDS]
SETTING = Setting(
    sample_batch=3, decode_batch=3, micro_batch=4, scoring=ONE_BY_ONE, num_diffusion_steps=2, keep_hidden=False
)


@pytest.fixture(scope="module")
def policy_path(tmp_path_factory):
    return random_policy(tmp_path_factory.mktemp("policy") / "random", num_image_tokens=64)


@pytest.fixture(scope="module")
def config(policy_path, tmp_path_factory):
    """Two steps of two groups of four, with everything in the loss that a recipe may have."""
    return RunConfig.model_validate(
        {
            "run_dir": str(tmp_path_factory.mktemp("run")),
            "policy": {"path": str(policy_path)},
            "prompts": {"train": "-", "heldout": "-"},
            "rollout": {"prompts_per_step": 2, "group_size": 4, "record_every_steps": 0, "temperature": 0.9},
            "rewards": [{"name": "ocr", "weight": 0.7}, {"name": "guard", "type": "reference_guard", "weight": 0.3}],
            "trainer": {
                "max_steps": 2,
                "learning_rate": 1e-3,
                "lr_scheduler_type": "cosine",
                "beta": 0.1,
                "max_grad_norm": 0.5,
                "micro_batch_size": 4,
            },
            "report_to": [],
        }
    )


@pytest.fixture(scope="module")
def trained(config, policy_path):
    """The trainer after its two steps; their rollouts, metrics and gradients."""
    batches, gradients = [], []

    class Kept(FakePipeline):
        def collect(self, *args, **kwargs):
            batches.append(super().collect(*args, **kwargs))
            return batches[-1]

    folder = RunFolder(config.run_dir)
    folder.prepare(config)

    def see(trainer, norm):
        scale = float(norm) / config.trainer.max_grad_norm  # the gradient is clipped already
        gradients.append({name: value.grad * scale for name, value in trainer.model.named_parameters()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "see_gradient_norm", see)
        trainer = run_training(config, PROMPTS, PROMPTS, Kept(policy_path, config))
    return trainer, batches, read_metrics(folder.metrics), gradients


@pytest.fixture
def loop(config, policy_path):
    return PlainLoop(config, policy_path, None, SETTING)


def rollouts(batch):
    """Prompts, tokens `[B, T]` and rewards `[B, R]` of a step."""
    flat = [(group.prompt_ids, rollout) for group in batch.groups for rollout in group.rollouts]
    tokens = torch.from_numpy(np.stack([rollout.completion.token_ids for _, rollout in flat]).astype(np.int64))
    rewards = np.array([list(rollout.rewards.values()) for _, rollout in flat])
    return [list(row) for row, _ in flat], tokens, rewards


def test_its_steps_are_the_trainers(trained, loop):
    """Losses, gradients and updates of two steps from the same rollouts; the second has a KL term and moments.

    Updates are compared as a whole: AdamW makes much of the rounding of a gradient that is nearly 0.
    """
    trainer, batches, metrics, gradients = trained
    start = {name: value.detach().clone() for name, value in loop.policy.ar.named_parameters()}
    for batch, line, gradient in zip(batches, metrics, gradients, strict=True):
        loss = loop.backward(*rollouts(batch))
        assert loss == pytest.approx(line["loss"], abs=1e-5)
        found = {name: value.grad.clone() for name, value in loop.policy.ar.named_parameters()}
        assert distance(found, gradient) < 1e-4
        loop.optimizer.zero_grad()
        loop.learn(*rollouts(batch))
    assert metrics[1]["kl/reference"] > 1e-4 and metrics[1]["grad_norm"] > 0.5  # the KL term and clipping took part
    ours = {name: value.detach() - start[name] for name, value in loop.policy.ar.named_parameters()}
    theirs = {name: value.detach() - start[name] for name, value in trainer.model.named_parameters()}
    assert distance(ours, theirs) < 1e-3


def distance(found, expected):
    """Norm of the difference of named tensors, as a share of the second's norm."""
    assert found.keys() == expected.keys()
    squares = [((found[name] - value).square().sum(), value.square().sum()) for name, value in expected.items()]
    difference, size = (torch.stack(column).sum().sqrt() for column in zip(*squares, strict=True))
    return float(difference / size)


def test_its_log_probs_are_the_trainers(trained, loop):
    trainer, batches, *_ = trained
    rows, tokens, _ = rollouts(batches[0])
    loop.policy.ar.load_state_dict(trainer.model.state_dict())
    ids, mask = loop.sequences(rows, tokens)
    assert len({len(row) for row in rows}) == 2  # left padding is part of what is tested
    with torch.no_grad():
        ours = loop.logprobs(loop.policy.ar, ids, mask)
        theirs, _ = trainer.logprobs(trainer.model, ids, mask, batch_size=None, entropy=False)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_its_advantages_are_those_of_a_group_with_a_floor():
    rewards = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, np.nan], [0.501, np.nan]])
    found = group_advantages(rewards, [1.0, 0.5], 2, "group", floor=0.05)
    expected = [-0.5 / (0.5**0.5 + 1e-4), 0.5 / (0.5**0.5 + 1e-4), -0.0005 / (0.05 + 1e-4), 0.0005 / (0.05 + 1e-4)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert group_advantages(rewards, [1.0, 0.5], 2, "none", floor=0.05).tolist()[:2] == pytest.approx([-0.5, 0.5])


@pytest.mark.parametrize("keep_hidden", [True, False])
def test_it_draws_image_tokens_and_decodes_them_as_the_policy_does(loop, keep_hidden):
    loop.setting = replace(SETTING, keep_hidden=keep_hidden)
    size = loop.config.rollout.group_size
    rows, seeds = loop.rows(PROMPTS[:2], size), loop.seeds(PROMPTS[:2], 1, size)
    torch.manual_seed(0)
    (tokens, hidden), space = loop.sample(rows), loop.policy.image_tokens
    assert tokens.shape == (8, space.num_tokens)
    assert tokens.min() >= space.start and tokens.max() < space.stop
    assert seeds[0] == seeds[3] != seeds[4]  # noise is shared in a group
    with torch.no_grad():
        states = loop.policy.hidden_states(*loop.sequences(rows, tokens))
        expected = loop.policy.decode(states, loop.policy.noise(seeds), 2, 2.0).numpy()
    assert (hidden is not None) == keep_hidden
    if keep_hidden:
        torch.testing.assert_close(hidden, states, atol=1e-4, rtol=0)
    found = loop.decode(rows, tokens, hidden, seeds)
    assert found.shape == expected.shape and found.std() > 1
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_search_leaves_the_weights_as_they_are_and_takes_the_fastest(loop):
    class Counted:
        def __call__(self, images, prompts, way):
            return np.linspace(0, 1, len(images))[:, None] * [1.0, 1.0]

    before = {name: value.clone() for name, value in loop.policy.ar.state_dict().items()}
    loop.scoring = Counted()
    setting, tried = tuned(loop, PROMPTS[:2])
    assert setting == loop.setting and setting.num_diffusion_steps == SETTING.num_diffusion_steps
    assert tried["decode"].keys() == tried["learn"].keys() == {"8"} and tried["sample"].keys() == {"8"}
    assert tried["score"].keys() == set(WAYS) - {ONE_BY_ONE}
    assert all(torch.equal(before[name], value) for name, value in loop.policy.ar.state_dict().items())
    assert all(parameter.grad is None for parameter in loop.policy.ar.parameters())


@pytest.mark.slow
def test_every_way_to_score_gives_the_same_scores():
    """OCR and the guard, in this process and in a pool."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 56, 56, 3), dtype=np.uint8)
    prompts = [prompt for prompt in PROMPTS[:2] for _ in range(4)]
    sections = [RewardSection(name="ocr"), RewardSection(name="guard", type="reference_guard")]
    scoring = Scoring(sections, group_size=4, cores=2)
    try:
        scoring.fit(images, prompts)
        expected = scoring(images, prompts, ONE_BY_ONE)
        assert expected.shape == (8, 2) and np.isfinite(expected).all()
        for way in WAYS:
            np.testing.assert_allclose(scoring(images, prompts, way), expected, atol=1e-6)
    finally:
        scoring.close()
