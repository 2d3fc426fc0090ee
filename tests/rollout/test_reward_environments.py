"""Rewards in interpreters of their own, in replicas and in batches: the same scores, or a stop at the start."""

import os
import socket
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import ray
from pydantic import ValidationError

from blip3o_grpo.configs import ConfigError, RewardSection
from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rollout import Prompt, RolloutError, RolloutPipeline
from blip3o_grpo.rollout.messages import DecodedChunk, GroupRequest, ScoreFailure, Work
from blip3o_grpo.rollout.placement.pools import start_board, start_reward_workers
from blip3o_grpo.rollout.placement.resources import WorkerResources, plan_resources
from blip3o_grpo.rollout.workers.environments import (
    check_environment,
    check_reward_interpreter,
    make_import_root,
    reward_environment,
)
from blip3o_grpo.rollout.workers.reward import RewardWorker
from blip3o_grpo.validate import check_rewards

ONLY_THERE = "FACTOR = 2\n\n\nclass OnlyThereError(Exception):\n    pass\n"


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """A second virtual environment: this one's packages, and the module `only_there`."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "only_there.py").write_text(ONLY_THERE)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """URL of a reward server, which serves the brightness of images to who has the token `s3cret`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    search = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "blip3o_grpo.rewards.http.server", "toy_rewards:Brightness", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--token-env", "REWARD_TOKEN"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "REWARD_TOKEN": "s3cret"},
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def section(**values):
    return RewardSection(**{"name": "quality", "type": "environment_rewards:Elsewhere", **values})


def test_scores_are_the_same_wherever_they_are_made(launch, make_config, prompts, interpreter, service, tmp_path):
    """One reward in this environment, one in another, one behind HTTP, one whose worker is killed within a call."""
    rewards = [
        {"name": "brightness", "type": "toy_rewards:Brightness"},
        {"name": "elsewhere", "type": "environment_rewards:Elsewhere", "runtime_env": {"py_executable": interpreter}},
        {
            "name": "remote",
            "type": "remote",
            "options": {"url": service, "token_env": "REWARD_TOKEN", "retries": 8},  # it may still be starting
            "runtime_env": {"env_vars": {"REWARD_TOKEN": "${SERVICE_TOKEN}"}},
            "batch_size": 100,
        },
        {
            "name": "killed",
            "type": "environment_rewards:KilledOnce",
            "options": {"folder": str(tmp_path)},
            "replicas": 2,
            "batch_size": 4,
        },
    ]
    with launch(make_config(rewards=rewards, rollout={"images_per_decode": 6})) as pipeline:
        assert pipeline.needs_reference()
        pipeline.load_reward_state({"killed": {"mean": 0.25}})
        batch = pipeline.collect(prompts, step=0)
        workers = set(pipeline.worker_stats())
    assert batch.skipped_groups == 0 and len(batch.groups) == len(prompts)
    rollouts = [rollout for group in batch.groups for rollout in group.rollouts]
    brightness = np.array([rollout.image.mean() / 255 for rollout in rollouts])
    scores = {name: [r.rewards[name] for r in rollouts] for name in ("brightness", "remote", "elsewhere", "killed")}
    np.testing.assert_allclose(scores["brightness"], brightness)
    np.testing.assert_allclose(scores["remote"], brightness)
    np.testing.assert_allclose(scores["elsewhere"], 2 * brightness)
    np.testing.assert_allclose(scores["killed"], brightness - 0.25)
    assert {"reward-killed-0", "reward-killed-1", "reward-elsewhere-0"} <= workers
    victim = (tmp_path / "killed").read_text()
    calls = [file for file in tmp_path.iterdir() if file.name != "killed"]
    assert {file.name.split("-")[0] for file in calls} - {victim} and victim not in {
        f.name.split("-")[0] for f in calls
    }
    assert {file.read_text() for file in calls} == {"4", "2"}  # two groups of three images, at most four a call


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("environment_rewardz:Elsewhere", "importing 'environment_rewardz' failed: ModuleNotFoundError"),
        ("toy_rewards:Unloadable", "cannot be built: ModuleNotFoundError: No module named 'a_library_nobody_insta"),
        ("environment_rewards:Unreadable", "cannot be built: OnlyThereError: the licence has run out"),
    ],
)
def test_a_broken_install_elsewhere_is_told_at_the_start(cluster, make_config, interpreter, reward, message):
    config = make_config(rewards=[section(type=reward, runtime_env={"py_executable": interpreter}).model_dump()])
    check_rewards(config)  # nothing of it is imported here
    board = start_board(config.faults, "broken")
    (worker,) = start_reward_workers(config, config.rewards[0], "broken", WorkerResources(1, 0, 0))
    with pytest.raises(RewardError, match=message):
        ray.get(worker.ready.remote())
    ray.kill(worker)
    ray.kill(board)


def test_it_stops_the_run(cluster, make_config, policy_path, interpreter):
    rewards = [section(type="environment_rewards:Unreadable", runtime_env={"py_executable": interpreter}).model_dump()]
    with pytest.raises(RewardError, match="reward 'quality' cannot be built: OnlyThereError: the licence has run out"):
        RolloutPipeline.launch(make_config(rewards=rewards), policy_path)


def script(folder, text):
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_that_cannot_run_workers_is_refused_before_anything_starts(tmp_path, interpreter):
    """Ray would restart it for ever."""
    check_reward_interpreter(section(runtime_env={"py_executable": f"nice {interpreter}"}))
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    old = script(tmp_path, """echo '[[3, 9], "1.13.0", "1.26.4"]'""")
    for command, message in (
        ("/no/such/python", "'/no/such/python' cannot run a worker: .*No such file"),
        (f"{bare}/bin/python", "cannot run a worker: ModuleNotFoundError: No module named 'numpy'"),
        (old, r"has Python 3.9; workers need Python 3\.\d+, as the driver has"),
    ):
        with pytest.raises(RolloutError, match=message):
            check_reward_interpreter(section(runtime_env={"py_executable": command}))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"pipp": ["open_clip"]}, "unknown key 'pipp' in runtime_env; did you mean 'pip'?"),
        ({"python": "/usr/bin/python3"}, "unknown key 'python' in runtime_env"),
        ({"packages": []}, "known keys: conda, config, env_vars, image_uri, pip, py_executable"),
    ],
)
def test_unknown_keys_are_refused_by_the_schema(environment, message):
    with pytest.raises(ValidationError, match=message.replace("?", r"\?")):
        section(runtime_env=environment)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"py_executable": ["uv", "run"]}, "py_executable must be a command"),
        ({"env_vars": {"TOKEN": 3}}, "must be of type Dict"),
        ({"pip": ["open_clip"], "uv": ["open_clip"]}, "cannot be specified at the same time"),
        ({"working_dir": "/tmp"}, "only supported at the job level"),
        ({"config": {"setup_timeout_seconds": 0}}, "setup_timeout_seconds must be greater than zero"),
    ],
)
def test_values_are_checked_by_ray_before_models_load(make_config, environment, message):
    config = make_config(rewards=[section(runtime_env=environment).model_dump()])
    with pytest.raises(ConfigError, match=f"reward 'quality': .*{message}"):
        check_rewards(config)


def test_a_rewards_own_variables_win_over_ours():
    own = section(runtime_env={"pip": ["open_clip"], "env_vars": {"OMP_NUM_THREADS": "4", "MODEL": "large"}})
    assert reward_environment(own, {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}) == {
        "pip": ["open_clip"],
        "env_vars": {"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "PASSIVE", "MODEL": "large"},
    }
    assert reward_environment(section(), {"A": "1"}) == {"env_vars": {"A": "1"}}
    check_environment(own)


def test_reward_workers_need_nothing_but_ray_and_numpy():
    code = (
        "import sys, blip3o_grpo.rollout.workers.reward;"
        "heavy = {'torch', 'vllm', 'transformers', 'policies', 'pydantic', 'PIL', 'cv2'};"
        "loaded = heavy & set(sys.modules);"
        "assert not loaded, loaded"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_replicas_of_every_reward_count(make_config):
    rewards = [section(name="one", replicas=3).model_dump(), section(name="two").model_dump()]
    sections = {"rewards": rewards, "cluster": {"rewards": 2, "threads": 2}}
    assert plan_resources(make_config(**sections), cpus=15)["score"].num_cpus == 2  # 2 x (1 + 1 + 3 + 2) + 1
    assert plan_resources(make_config(**sections), cpus=14)["score"].num_cpus == 0


@pytest.fixture
def picky(monkeypatch):
    """Scores groups of three images, with or without a fault, in calls of at most `batch_size`; gives their sizes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from environment_rewards import Picky

    def run(batch_size, faults):
        monkeypatch.setattr(Picky, "calls", [])
        worker = RewardWorker("reward-picky-0", "picky", "environment_rewards:Picky", {}, batch_size)
        requests = [
            GroupRequest(Prompt(f"p{i}", "a sign", {"fault": fault}), [], 3, 0, ()) for i, fault in enumerate(faults)
        ]
        images = [np.full((3, 4, 4, 3), 51 * i, np.uint8) for i in range(len(faults))]
        scored = worker.score(DecodedChunk(tuple(requests), tuple(images), Work("decoder-0", 0.0, 0)), None)
        return scored.scores, Picky.calls

    return run


def test_batches_span_groups_and_split_them(picky):
    expected = tuple([[0.2 * group] * 3 for group in range(3)])
    for batch_size, calls in ((None, [3, 3, 3]), (100, [9]), (4, [4, 4, 1]), (2, [2, 2, 2, 2, 1])):
        scores, sizes = picky(batch_size, [False] * 3)
        np.testing.assert_allclose(scores, expected)
        assert sizes == calls


def test_a_failure_in_a_batch_costs_only_its_own_group(picky):
    scores, sizes = picky(100, [False, True, False])
    assert sizes == [9, 3, 3, 3]
    np.testing.assert_allclose([scores[0], scores[2]], [[0.0] * 3, [0.4] * 3])
    assert isinstance(scores[1], ScoreFailure) and scores[1].message == "OSError: a fault in this call"


def test_a_group_reward_gets_each_group_whole_whatever_the_batch_size(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from environment_rewards import Ranks

    requests = tuple(GroupRequest(Prompt(f"p{i}", f"sign {i}", {}), [], 3, 0, ()) for i in range(3))
    images = tuple(np.stack([np.full((4, 4, 3), 9 * i, np.uint8) for i in (2, 0, 1)]) for _ in requests)
    decoded = DecodedChunk(requests, images, Work("decoder-0", 0.0, 0))
    for batch_size in (None, 2, 4, 100):
        monkeypatch.setattr(Ranks, "calls", [])
        worker = RewardWorker("reward-ranks-0", "ranks", "environment_rewards:Ranks", {}, batch_size)
        assert worker.score(decoded, None).scores == ([2.0, 0.0, 1.0],) * 3
        assert Ranks.calls == [3, 3, 3]


def test_a_worker_finds_a_function_in_the_folder_it_is_told(tmp_path):
    (tmp_path / "mine.py").write_text("def half(images, prompts, metadata, to=0.5):\n    return [to] * len(images)\n")
    worker = RewardWorker("reward-half-0", "half", "mine:half", {"to": 0.25}, None, str(tmp_path))
    request = GroupRequest(Prompt("p", "a sign", {}), [], 2, 0, ())
    decoded = DecodedChunk((request,), (np.zeros((2, 4, 4, 3), np.uint8),), Work("decoder-0", 0.0, 0))
    assert worker.score(decoded, None).scores == ([0.25, 0.25],)


def test_another_interpreter_finds_this_project_and_nothing_else_of_its_folder(tmp_path):
    root = make_import_root(tmp_path)
    assert [path.name for path in root.iterdir()] == ["blip3o_grpo"]
    code = "import blip3o_grpo.rollout.workers.reward as m, sys; print(m.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(root)), found.stderr
    assert make_import_root(tmp_path) == root  # again, as on resume
    own = section(runtime_env={"py_executable": "python", "env_vars": {"PYTHONPATH": "/theirs"}})
    assert reward_environment(own, {}, root)["env_vars"]["PYTHONPATH"] == f"{root}:/theirs"
    assert "PYTHONPATH" not in reward_environment(section(runtime_env={"env_vars": {"A": "1"}}), {}, root)["env_vars"]


def test_explanations_are_given_on_request_and_stay_with_their_images(monkeypatch):
    """In calls of four images for groups of three; the scores are the same with them and without."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    worker = RewardWorker("reward-guard-0", "guard", "toy_rewards:Explained", {}, 4)
    images = tuple(np.full((3, 4, 4, 3), 51 * i, np.uint8) for i in range(3))
    requests = tuple(GroupRequest(Prompt(f"p{i}", "a sign", {}), [], 3, 0, ()) for i in range(3))
    decoded = DecodedChunk(requests, images, Work("decoder-0", 0.0, 0))
    scored = worker.score(decoded, None, explain=True)
    assert worker.score(decoded, None).explanations == ()
    assert scored.scores == worker.score(decoded, None).scores
    assert scored.explanations == tuple([{"level": 51 * i}] * 3 for i in range(3))
