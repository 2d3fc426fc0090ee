"""Which services are asked through the environment's proxy, and what a proxy that fails is called."""

import asyncio
import queue

import pytest

from blip3o_grpo.rewards import RewardError, example_batch
from blip3o_grpo.rewards.http import proxies
from blip3o_grpo.rewards.http.client import RemoteReward
from blip3o_grpo.rewards.http.server import create_app
from tests.rewards.http.speaking import OK, listening, reply, speaking

VARIABLES = ("http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_service_of_this_machine_is_not_asked_through_a_proxy(monkeypatch, variable):
    monkeypatch.setenv(variable, "http://me:pa55@127.0.0.1:9")
    with listening(create_app(lambda batch: [0.25] * len(batch), "quarter")) as url:
        assert RemoteReward(url)(example_batch(1, size=24)) == [0.25]


@pytest.mark.parametrize(
    ("host", "straight"),
    [
        ("127.0.0.1:80", True), ("[::1]", True), ("[::ffff:127.0.0.1]:80", True), ("localhost", True),
        ("10.1.2.3", True), ("192.168.0.4", True), ("172.20.0.1", True), ("100.64.0.1", True), ("169.254.1.1", True),
        ("gpu-node-3:8000", True), ("scores.internal", True), ("scores.local.", True), ("127.1", True),
        ("[fd00::1]", True), ("8.8.8.8", False), ("[2001:4860:4860::8888]", False), ("rewards.invalid", False),
    ],
)  # fmt: skip
def test_proxies_are_for_public_hosts(monkeypatch, host, straight):
    monkeypatch.setenv("all_proxy", "proxy.example:3128")
    found = {when: asyncio.run(proxies.find_proxy(f"http://{host}/a", when, 1)) for when in proxies.PROXIES}
    assert found == {
        "never": None,
        "always": "http://proxy.example:3128",
        "public": None if straight else found["always"],
    }
    monkeypatch.setenv("no_proxy", "*")
    assert asyncio.run(proxies.find_proxy(f"http://{host}/a", "always", 1)) is None


def test_a_proxy_that_fails_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:pa55@127.0.0.1:9")
    for options in ({"url": "http://8.8.8.8"}, {"url": "http://127.0.0.1:8", "proxy": "always"}):
        with pytest.raises(RewardError, match="through the proxy http://127.0.0.1:9, connection refused") as error:
            RemoteReward(**options, patience_s=0)
        assert "pa55" not in str(error.value)
    monkeypatch.setenv("http_proxy", "socks5://me:pa55@127.0.0.1:9")
    with pytest.raises(RewardError, match="'socks5://127.0.0.1:9'; only http:// and https:// proxies"):
        RemoteReward("http://8.8.8.8")


def test_a_proxy_passes_the_request_on_when_asked_to(monkeypatch):
    seen = queue.Queue()  # the proxy's thread notes a request after its answer has left
    with speaking(lambda connection: seen.put(reply(connection, OK))) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        RemoteReward("http://127.0.0.1:8", proxy="always", patience_s=0)
        assert seen.get(timeout=30).startswith(b"GET http://127.0.0.1:8/health HTTP/1.1")
