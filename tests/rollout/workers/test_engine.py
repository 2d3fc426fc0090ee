"""The engine on a released folder: no copy, no sync needed, image rows only, and the policy's own numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import ray
import torch

from blip3o_grpo.policies import BLIP3oNext, ImageTokens, image_logprobs
from blip3o_grpo.policies.blip3o_next.tied import shared_once
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.rollout.messages import GroupRequest
from blip3o_grpo.rollout.weights.packing import pack_weights
from blip3o_grpo.rollout.workers.engine import EngineIds, EngineSettings, engine_environment
from blip3o_grpo.rollout.workers.sampler import Sampler
from scripts.make_full_size import make

TEMPERATURE = 0.7
PROMPTS = ("a sign", 'a red sign that says "TAXI" and a photo of two blue circles')
SETTINGS = EngineSettings("float32", max_num_seqs=8, gpus=0)


def test_engine_ids_put_the_image_tokens_first():
    ids = EngineIds(ImageTokens(start=1000, size=64, num_tokens=4), vocab_size=1100)
    assert ids.of_prompt([1000, 1063, 1064, 0, 999]) == [0, 63, 64, 100, 1099]
    assert ids.to_policy(ids.of_prompt(range(1100))).tolist() == list(range(1100))
    assert ids.to_policy([0, 63]).dtype == np.int32


class Unsynced(Sampler):
    """A sampler with the weights it found in the folder."""

    def use(self, snapshot: None) -> int:
        return 0

    def head_shape(self) -> tuple[int, ...]:
        return self._engine.collective_rpc(lambda worker: tuple(worker.model_runner.model.lm_head.weight.shape))[0]


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def released(tmp_path_factory, request):
    """The released model at a twentieth of its size: bfloat16 shards with all parts, a head among them that a tied
    model does not use."""
    folder = make(tmp_path_factory.mktemp("released"), scale=0.05, shard_gb=0.003)
    values = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": request.param}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def sampler(cluster, released):
    actor = ray.remote(Unsynced).options(runtime_env={"env_vars": engine_environment(SETTINGS)})
    handle = actor.remote("unsynced", released, SETTINGS, TEMPERATURE)
    ray.get(handle.ready.remote())
    yield handle
    ray.kill(handle)


def test_the_engine_reads_the_folder_and_computes_image_rows_only(sampler, released):
    files = sorted(released.rglob("*"))
    policy = BLIP3oNext.from_pretrained(released)
    space = policy.image_tokens
    assert ray.get(sampler.head_shape.remote()) == (-(-space.size // 64) * 64, policy.config.hidden_size)
    found, drawn, expected = drawn_and_expected(sampler, policy)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert drawn.min() >= space.start and drawn.max() < space.stop
    assert len(torch.unique(drawn)) > space.num_tokens  # of the whole codebook, not of a corner
    assert sorted(released.rglob("*")) == files


def test_the_engine_follows_the_weights_it_is_given(sampler, released):
    policy = BLIP3oNext.from_pretrained(released)
    with torch.no_grad():
        policy.ar.lm_head.weight.mul_(3)
    weights = policy.ar.state_dict()
    weights = shared_once(weights) if policy.config.tie_word_embeddings else weights
    ray.get(sampler.load.remote(pack_weights(weights, torch.float32)))
    found, _, expected = drawn_and_expected(sampler, policy)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def drawn_and_expected(sampler, policy):
    """Log-probs of what the engine drew, the tokens, and the policy's log-probs of them."""
    space = policy.image_tokens
    requests = [
        GroupRequest(Prompt(text, text), policy.prompts.encode(text), group_size=3, seed=10 * i, noise_seeds=(0, 0, 0))
        for i, text in enumerate(PROMPTS)
    ]
    sampled = ray.get(sampler.sample.remote(requests, None))
    rows = [[*r.prompt_ids, *c.token_ids] for r, g in zip(requests, sampled.completions, strict=True) for c in g]
    ids, mask = policy.prompts.pad(rows)
    with torch.no_grad():
        expected, _ = image_logprobs(policy.ar, ids, mask, space, TEMPERATURE)
    found = np.stack([completion.logprobs for group in sampled.completions for completion in group])
    return found, ids[:, -space.num_tokens :], expected.numpy()
