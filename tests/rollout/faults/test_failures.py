"""What goes wrong in a reward or a worker stops the run with its prompt and images, or drops the group when told to."""

import pickle
from pathlib import Path

import pytest
import ray

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rollout import Prompt, RolloutError, RolloutPipeline
from blip3o_grpo.rollout.faults.failures import check_version
from blip3o_grpo.rollout.placement.pools import start_board

TEXT = 'a sign that says "{}"'


def prompt_with(fault):
    return Prompt(f"p-{fault}", TEXT.format(fault), {"fault": fault})


@pytest.fixture(scope="module")
def pipelines(launch, make_config):
    """One pipeline with two rewards that fail alike: `skips` drops the group, `stops` stops the run."""
    rewards = [{"name": "faulty", "type": "toy_rewards:Faulty", "on_error": "skip"}]
    faults = {"retries": 1, "backoff_s": 0.01, "timeout_s": {"score": 4}}
    config = make_config(rewards=rewards, rollout={"images_per_decode": 6}, faults=faults)
    with launch(config) as skips:
        stopping = config.model_copy(
            update={"rewards": tuple(reward.model_copy(update={"on_error": "stop"}) for reward in config.rewards)}
        )
        yield skips, RolloutPipeline(stopping, skips._board, skips._pools, skips._requests.encoder), config


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "OSError: the model server is gone"),
        ("short", "returned 1 scores for 3 images"),
        ("nan", "returned nan"),
        ("exit 0", "SystemExit: 0"),
        ("exit 3", "SystemExit: 3"),
        ("leave", "SystemExit: exit_actor() was called"),
        ("interrupt", "KeyboardInterrupt"),
        ("surrogate", r"ValueError: half of a pair: \ud83d"),
    ],
)
def test_failing_reward_stops_the_run_and_saves_the_images(pipelines, fault, message):
    _, stops, config = pipelines
    with pytest.raises(RolloutError) as error:
        stops.collect([prompt_with("none"), prompt_with(fault)], step=1)
    text = str(error.value)
    assert "reward 'faulty'" in text and repr(TEXT.format(fault)) in text and message in text
    name = f"step-1-faulty-p-{fault.replace(' ', '_')}"
    saved = sorted(path.name for path in _failures(config) if path.stem == name)
    assert saved == [f"{name}.png", f"{name}.txt"]
    pickle.loads(pickle.dumps(error.value))  # it must cross process borders


def test_skip_drops_whole_groups_and_counts_them(pipelines):
    skips, _, _ = pipelines
    prompts = [prompt_with(fault) for fault in ("raise", "fine", "nan", "none", "short")]
    batch = skips.collect(prompts, step=1)
    assert [group.prompt.id for group in batch.groups] == ["p-fine", "p-none"]
    assert batch.skipped_groups == 3
    assert [rollout.rewards["faulty"] for rollout in batch.groups[0].rollouts] == [0.5] * 3
    assert [rollout.rewards["faulty"] for rollout in batch.groups[1].rollouts] == [None] * 3


@pytest.mark.parametrize("fault", ["die", "die 0"])
def test_reward_that_kills_its_process_loses_its_own_group_only_and_never_becomes_a_score(pipelines, fault):
    """Painted in one batch with another group, and queued before a third. With exit code 0, too."""
    skips, _, _ = pipelines
    batch = skips.collect([prompt_with("fine"), prompt_with(fault), prompt_with("none")], step=1)
    assert [group.prompt.id for group in batch.groups] == ["p-fine", "p-none"]
    assert batch.skipped_groups == 1
    assert batch.faults["retries"] == 2 and batch.faults["timeouts"] == 0  # together, then by itself


def test_reward_that_exits_loses_its_own_group_only_and_its_worker_goes_on(pipelines):
    """`sys.exit(0)` and Ray's own `exit_actor()` too, which Ray takes for an end that was meant."""
    skips, _, _ = pipelines
    for step, fault in enumerate(("exit 0", "exit 3", "leave", "interrupt")):
        batch = skips.collect([prompt_with("fine"), prompt_with(fault), prompt_with("none")], step=step)
        assert [group.prompt.id for group in batch.groups] == ["p-fine", "p-none"]
        assert batch.faults == {"retries": 0, "restarts": 0, "timeouts": 0}


def test_reward_whose_process_gets_sigterm_is_tried_again_only_so_often(pipelines):
    skips, stops, _ = pipelines
    batch = skips.collect([prompt_with("fine"), prompt_with("term"), prompt_with("none")], step=1)
    assert [group.prompt.id for group in batch.groups] == ["p-fine", "p-none"]
    assert batch.faults["retries"] == 2  # together, then by itself
    with pytest.raises(RolloutError, match=r"2 attempts failed: .*\(faults.retries=1\)"):
        stops.collect([prompt_with("term")], step=1)
    ray.get(stops._board.take_counts.remote())  # a step that failed leaves its counts to the next


def test_reward_that_hangs_is_replaced_and_its_group_gets_its_scores(pipelines, tmp_path):
    skips, _, _ = pipelines
    hanging = Prompt("p-hang", TEXT.format("hang"), {"fault": "hang once", "marker": str(tmp_path / "hung")})
    batch = skips.collect([hanging, prompt_with("fine")], step=1)
    assert [[rollout.rewards["faulty"] for rollout in group.rollouts] for group in batch.groups] == [[0.5] * 3] * 2
    assert batch.faults == {"retries": 1, "restarts": 1, "timeouts": 1}
    logs = Path(ray._private.worker._global_node.get_logs_dir_path()).glob("worker-*.err")
    stacks = [text for log in logs if "Timeout (" in (text := log.read_text())]
    assert any("toy_rewards.py" in text for text in stacks), "a hang leaves its stack in the worker's log"


def test_reward_that_always_hangs_stops_the_run_with_its_prompt(pipelines):
    _, stops, config = pipelines
    with pytest.raises(RolloutError) as error:
        stops.collect([prompt_with("hang")], step=1)
    for part in (
        repr(TEXT.format("hang")),
        "stage score, worker reward-faulty-0",
        "2 attempts failed: no answer within 4 s (score), then no answer within 4 s (score) (faults.retries=1)",
        "step-1-faulty-p-hang.png",
    ):
        assert part in str(error.value)
    assert not [path for path in _failures(config) if "fine" in path.name]


def test_reward_that_cannot_be_built_says_why(cluster, make_config, policy_path):
    config = make_config(rewards=[{"name": "broken", "type": "toy_rewards:Unloadable"}])
    with pytest.raises((ImportError, RewardError), match="a_library_nobody_installed"):
        RolloutPipeline.launch(config, policy_path)


def test_too_many_gpus_are_refused(cluster, make_config, policy_path):
    with pytest.raises(RolloutError, match=r"asks for 8 GPUs in all \(8 x 1 for samplers\); the Ray cluster has 0"):
        RolloutPipeline.launch(make_config(cluster={"samplers": 8, "gpus_per_sampler": 1}), policy_path)


def test_too_few_nodes_are_refused(cluster, make_config, policy_path):
    with pytest.raises(RolloutError, match=r"cluster.nodes=2, but the Ray cluster has 1: start Ray on the others"):
        RolloutPipeline.launch(make_config(cluster={"nodes": 2}), policy_path)


def test_collect_before_sync_is_refused(pipelines, prompts):
    skips, _, config = pipelines
    empty = start_board(config.faults, "empty")
    with pytest.raises(RolloutError, match="sync_weights must come first"):
        RolloutPipeline(config, empty, skips._pools, skips._requests.encoder).collect(prompts, step=0)


def test_stale_worker_is_named():
    check_version(3, 3, "sampler-1")
    with pytest.raises(RolloutError, match="sampler-1 works with policy version 2, the newest is 3"):
        check_version(3, 2, "sampler-1")


def _failures(config):
    return Path(config.run_dir, "failures").iterdir()
