"""What stands in for samplers where a policy has no tokens: empty completions of the version that was published."""

from types import SimpleNamespace

from blip3o_grpo.rollout import Prompt
from blip3o_grpo.rollout.messages import GroupRequest, Snapshot
from blip3o_grpo.rollout.workers.no_sampler import NoSampler


def test_completions_are_empty_and_of_the_published_version():
    requests = [GroupRequest(Prompt(name, name), [1, 2], 3, seed, (7, 8, 9)) for name, seed in (("a", 10), ("b", 20))]
    snapshot = Snapshot(4, (SimpleNamespace(hex=lambda: "never fetched"),))
    worker = NoSampler("sampler")  # without a namespace no board is told
    chunk = worker.sample(requests, snapshot)
    assert chunk.requests == tuple(requests) and chunk.work.policy_version == 4
    assert [len(group) for group in chunk.completions] == [3, 3]
    for request, group in zip(requests, chunk.completions, strict=True):
        for member, completion in enumerate(group):
            assert completion.token_ids.shape == completion.logprobs.shape == (0,)
            assert (completion.policy_version, completion.seed) == (4, request.seed + member)
