"""Which Ray cluster a run uses, and what a cluster of its own lets others reach."""

import psutil
import pytest
import ray

import blip3o_grpo.cluster
from blip3o_grpo.cluster import check_temporary_folder, cluster_address, ray_cluster, start_cluster
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rollout.ray_seams import START_TIMED_OUT


@pytest.mark.parametrize(
    ("configured", "variable", "address"),
    [
        (None, None, "local"),
        (None, "", "local"),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        ("auto", None, "auto"),
        ("local", "10.0.0.1:6379", "local"),
    ],
)
def test_a_cluster_is_joined_only_by_name(make_config, monkeypatch, configured, variable, address):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_address(make_config(cluster={"address": configured})) == address


@pytest.mark.parametrize(
    "error", [ConnectionError("nobody\nthere"), RuntimeError("wrong token"), ValueError("no port")]
)
def test_a_cluster_that_cannot_be_joined_is_one_sentence(make_config, monkeypatch, error):
    def refuse(**options):
        assert options["address"] == "10.0.0.1:6379"
        raise error

    monkeypatch.setattr(blip3o_grpo.cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", refuse)
    with (
        pytest.raises(ConfigError, match=r"cluster\.address: no Ray cluster could be joined at '10\.0\.0\.1:6379'"),
        ray_cluster(make_config(cluster={"address": "10.0.0.1:6379"})),
    ):
        pass


def test_a_temporary_folder_too_long_for_sockets_is_one_sentence(make_config, monkeypatch):
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + 100 * "x")
    with pytest.raises(ConfigError, match="set RAY_TMPDIR"), ray_cluster(make_config(cluster={"address": "local"})):
        pass
    check_temporary_folder("/tmp")


def test_a_start_that_took_too_long_is_tried_again_then_one_sentence(monkeypatch):
    attempts = []

    def late(**_):
        attempts.append(1)
        raise Exception(f"The current node {START_TIMED_OUT}. This could happen ...")

    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", late)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "shutdown", lambda: None)
    with pytest.raises(ConfigError, match="did not start within its time in 3 attempts"):
        start_cluster({})
    assert len(attempts) == 3
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", lambda **_: attempts.append(1))
    start_cluster({})
    assert len(attempts) == 4


@pytest.mark.slow
def test_a_cluster_of_our_own_is_on_this_machine_only(make_config):
    """Every port of the driver and of all that Ray started for it."""
    if ray.is_initialized():
        pytest.skip("this process has a cluster already")
    with ray_cluster(make_config(cluster={"address": "local"})):
        assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
        ray.get(ray.remote(lambda: 1).remote())
        driver = psutil.Process()
        addresses = {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in (driver, *driver.children(recursive=True))
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    assert addresses and addresses <= {"127.0.0.1", "::1"}
