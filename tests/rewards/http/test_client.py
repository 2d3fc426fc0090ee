"""A remote reward gives the scores of the local one, or an error that names the service; never anything else."""

import asyncio
import threading
import time
import zlib
from collections import Counter

import numpy as np
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from blip3o_grpo.rewards import (
    RewardBatch,
    RewardError,
    build_reward,
    check_options,
    check_reward,
    example_batch,
    load_reward,
    score,
)
from blip3o_grpo.rewards.http import transport
from blip3o_grpo.rewards.http.client import RemoteReward
from blip3o_grpo.rewards.http.server import create_app
from tests.rewards.http.speaking import listening, reply, speaking

ANSWERS = {
    "text": lambda: Response("<h1>busy</h1>", media_type="text/html"),
    "lines": lambda: Response("<h1>\r\n  busy \x1b[2J\n</h1>\n", media_type="text/html"),
    "shape": lambda: JSONResponse([0.5, 0.5]),
    "dictionary": lambda: JSONResponse({"scores": {"0": 0.5}}),
    "few": lambda: JSONResponse({"scores": [0.5]}),
    "nan": lambda: Response('{"scores": [0.5, NaN, 0.5]}'),
    "word": lambda: JSONResponse({"scores": [0.5, "high", 0.5]}),
    "yes": lambda: JSONResponse({"scores": [True, True, True]}),
    "error": lambda: JSONResponse({"detail": "out of memory"}, 500),
    "refused": lambda: JSONResponse({"detail": "too many images"}, 413),
    "deep": lambda: Response("[" * 100_000),
    "huge": lambda: Response(b" " * 2_000_000),
    "endless": lambda: StreamingResponse(drip()),
    "digits": lambda: Response('{"scores": [0.5, 0.5, ' + "1" * 400 + "]}"),
    "moved": lambda: Response(status_code=302, headers={"Location": "/elsewhere"}),
}


TIMED = ("slow", "endless")


async def drip():
    """An answer that goes on and on, each piece in time."""
    while True:
        yield b" "
        await asyncio.sleep(0.02)


class Fingerprint:
    """Changes with any pixel, prompt or metadata; None where the metadata say so."""

    def __call__(self, batch):
        return [
            None if about.get("skip") else float(zlib.crc32(image.tobytes() + f"{prompt} {about}".encode()))
            for image, prompt, about in zip(batch.images, batch.prompts, batch.metadata, strict=True)
        ]


def dawdle(connection, step):
    """Never ends, though something comes ten times a second."""
    begin, piece = {
        "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        "body": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        "silence": (b"", b""),
        "upload": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    }[step]
    connection.sendall(begin)
    for _ in range(50):
        time.sleep(0.1)
        connection.sendall(piece)


@pytest.fixture(scope="module")
def good():
    with listening(create_app(Fingerprint(), "fingerprint", token="s3cret")) as url:
        yield url


@pytest.fixture(scope="module")
def faulty():
    """URL of a service with a wrong answer under each path, and how often each was asked."""
    app, attempts = FastAPI(), Counter()

    @app.get("/{fault}/health")
    def health(fault: str):
        return {}

    @app.post("/{fault}/score")
    async def answer(fault: str, request: Request):
        attempts[fault] += 1
        await request.body()
        if fault == "slow":
            await asyncio.sleep(2)
        if fault == "recovers" and attempts[fault] > 2:
            return {"scores": [0.25, None, 0.75]}
        return ANSWERS.get(fault, ANSWERS["error"])()

    with listening(app) as url:
        yield url, attempts


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transport, "BACKOFF_S", 0.001)
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")


def batch_of(count):
    batch = example_batch(count, size=24)
    metadata = [{"target_text": f"Grüße {index}", "skip": index == 1} for index in range(count)]
    return RewardBatch(batch.images, batch.prompts, metadata)


@pytest.mark.parametrize("encoding", ["json", "multipart"])
def test_scores_are_those_of_the_local_reward(good, encoding):
    batch = batch_of(7)
    remote = build_reward(
        "remote",
        {"url": good, "token_env": "REWARD_TOKEN", "max_batch": 3, "encoding": encoding},
    )
    assert score(remote, batch) == score(Fingerprint(), batch)
    assert score(remote, batch)[1] is None
    check_reward(remote, batch)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("text", "answered no JSON: <h1>busy</h1>"),
        ("lines", r"answered no JSON: <h1> busy \?\[2J </h1>"),
        ("shape", r'answered no {"scores": \[...\]}: \[0.5,0.5\]'),
        ("dictionary", "returned dict instead of a list"),
        ("few", "returned 1 scores for 3 images"),
        ("nan", "returned nan for prompt"),
        ("word", "returned 'high'"),
        ("yes", "returned True"),
        ("error", "answered 500 Internal Server Error: .*out of memory"),
        ("refused", "answered 413 .*too many images"),
        ("moved", "answered 302 Found"),
        ("deep", "answered no JSON"),
        ("huge", "answered more than 1048576 bytes"),
        ("digits", "returned inf for prompt"),
        ("slow", r"did not answer: it took longer than 0.2 s \(3 attempts in .* s\); raise timeout \(now 0.2\)"),
        ("endless", "did not answer: it took longer than 0.2 s"),
    ],
)
def test_every_wrong_answer_is_an_error_that_names_the_service(faulty, fault, message):
    base, attempts = faulty
    remote = RemoteReward(f"{base}/{fault}/", timeout=0.2 if fault in TIMED else 10, retries=2)
    with pytest.raises(RewardError, match=message) as error:
        remote(batch_of(3))
    assert f"{base}/{fault}/score" in str(error.value)
    assert attempts[fault] == (3 if fault in ("error", *TIMED) else 1)  # only what may pass is tried again


def test_a_service_that_recovers_costs_retries_only(faulty):
    base, attempts = faulty
    assert RemoteReward(f"{base}/recovers", retries=2)(batch_of(3)) == [0.25, None, 0.75]
    assert attempts["recovers"] == 3


def test_a_request_that_is_too_large_says_so_over_a_real_connection():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    batch = RewardBatch([noise] * 4, ["noise"] * 4, [{}] * 4)
    with listening(create_app(Fingerprint(), "fingerprint", max_request_bytes=5_000_000)) as url:
        with pytest.raises(RewardError, match="answered 413 .*larger than 5000000 bytes; send fewer images"):
            RemoteReward(url)(batch)
        assert RemoteReward(url, max_batch=1)(batch) == Fingerprint()(batch)


def test_a_service_that_is_gone_is_named():
    with listening(create_app(Fingerprint(), "fingerprint")) as url:
        remote = RemoteReward(url, patience_s=0.05)
        assert remote(batch_of(0)) == []
    for action in (lambda: remote(batch_of(1)), lambda: RemoteReward(url, patience_s=0.05)):
        words = rf"{url}/.* did not answer: connection refused \(\d+ attempts in 0.\d s\); .* patience_s \(now 0.05\)"
        with pytest.raises(RewardError, match=words):
            action()


@pytest.mark.parametrize("slow_step", ["headers", "body", "silence", "upload"])
def test_an_attempt_ends_at_its_deadline_however_the_service_spends_it(slow_step):
    """Each piece comes in time; all of them together never do."""
    with speaking(lambda connection: dawdle(connection, slow_step)) as url:
        start = time.monotonic()
        with pytest.raises(RewardError, match="it took longer than 0.3 s .1 attempt"):
            RemoteReward(url, timeout=0.3, retries=0)
        assert time.monotonic() - start < 2


def test_tls_that_never_begins_ends_at_the_deadline():
    error = pytest.raises(RewardError, match="it took longer than 0.3 s")
    with speaking(lambda connection: time.sleep(2)) as url, error:
        RemoteReward(url.replace("http", "https"), timeout=0.3, retries=0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"hello there\r\n\r\n", "what came is no HTTP"),
        (b"", "closed before the answer was complete|connection reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "closed before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "closed before the answer was complete"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered 503 Busy: .*patience_s"),
        (b"HTTP/1.1 307 Moved\r\nLocation: /health\r\nContent-Length: 0\r\n\r\n", "answered 307 Moved"),
    ],
)
def test_what_is_no_answer_is_told_in_plain_words(answer, message):
    with speaking(lambda connection: reply(connection, answer)) as url:
        with pytest.raises(RewardError, match=message) as error:
            RemoteReward(url, retries=0, patience_s=0.01)
        assert "http" not in str(error.value).replace(url, "").replace("HTTP", "")
        with pytest.raises(RewardError, match="a service without TLS is written http://|TLS began|reset"):
            RemoteReward(url.replace("http", "https"), retries=0, patience_s=0.01)


def test_a_service_that_restarts_costs_patience_only(caplog):
    """Nobody listens for a while; the port is the same afterwards."""
    with listening(create_app(Fingerprint(), "fingerprint")) as url:
        remote = RemoteReward(url, retries=0)
    port = int(url.rpartition(":")[2])

    def restart():
        time.sleep(0.3)
        back.append(listening(create_app(Fingerprint(), "fingerprint"), port))
        back[0].__enter__()

    back = []
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        assert remote(batch_of(2)) == Fingerprint()(batch_of(2))
    finally:
        thread.join()
        back[0].__exit__(None, None, None)
    assert [record.getMessage() for record in caplog.records if "asked again for 60 s" in record.getMessage()]


def test_it_answers_where_an_event_loop_runs_already(good):
    """As in a notebook, or in an asynchronous actor."""

    async def ask():
        return RemoteReward(good, token_env="REWARD_TOKEN")(batch_of(2))

    assert asyncio.run(ask()) == Fingerprint()(batch_of(2))


def test_the_token_is_asked_for_at_the_start_and_never_shown(good, monkeypatch):
    with pytest.raises(RewardError, match="health answered 401 .*the bearer token is missing or wrong"):
        RemoteReward(good)
    monkeypatch.setenv("REWARD_TOKEN", "gu3ss")
    with pytest.raises(RewardError, match="answered 401") as error:
        RemoteReward(good, token_env="REWARD_TOKEN")
    assert "gu3ss" not in str(error.value)
    monkeypatch.setenv("REWARD_TOKEN", "gu3ss\nX-Other: 1")
    with pytest.raises(RewardError, match="the value of REWARD_TOKEN holds") as error:
        RemoteReward(good, token_env="REWARD_TOKEN")
    assert "gu3ss" not in str(error.value)
    monkeypatch.delenv("REWARD_TOKEN")
    with pytest.raises(RewardError, match="the environment variable REWARD_TOKEN is not set"):
        RemoteReward(good, token_env="REWARD_TOKEN")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "must look like http://HOST:PORT"),
        ({"url": "ftp://host"}, "must look like"),
        ({"url": "http://host:80000"}, "must look like"),
        ({"url": "http://host/score?token=abc"}, "must look like"),
        ({"url": "http://me:secret@host"}, "user name or password"),
        ({"url": "http://host", "timeout": 0}, "timeout is 0"),
        ({"url": "http://host/score?token=abc"}, r"'http://host/score\?...'"),
        ({"url": "http://me:sec/ret@host"}, "remote url is 'http://host'"),
        ({"url": "http://" + "a" * 64 + ".example"}, "must look like"),
        ({"url": "http://host", "retries": -1}, "retries is -1"),
        ({"url": "http://host", "patience_s": -1}, "patience_s is -1"),
        ({"url": "http://host", "patience_s": float("nan")}, "patience_s is nan"),
        ({"url": "http://host", "proxy": "system"}, "unknown remote proxy 'system'"),
        ({"url": "http://host", "max_batch": 0}, "max_batch is 0"),
        ({"url": "http://host", "encoding": "pickle"}, "unknown remote encoding 'pickle'"),
        ({"url": "http://host", "token_env": "hf-abc/def"}, "not the token itself"),
        ({"url": "http://host", "timeout": "soon"}, "wrong type"),
        ({"url": 8000}, "wrong type|must look like"),
        ({}, "missing a required argument: 'url'"),
    ],
)
def test_options_are_checked_without_a_network(options, message):
    with pytest.raises(RewardError, match=message):
        check_options(RemoteReward, options, "remote")


def test_metadata_that_json_cannot_hold_are_refused(good):
    remote = RemoteReward(good, token_env="REWARD_TOKEN")
    with pytest.raises(RewardError, match="metadata that JSON cannot hold"):
        remote(RewardBatch(*[[value] for value in (np.zeros((8, 8, 3), np.uint8), "a sign", {"size": {1, 2}})]))


def test_a_service_of_a_group_reward_gets_whole_groups():
    """It says that its reward compares siblings, and the client does not split them."""
    sizes = []

    class Ranks:
        kind = "group"

        def __call__(self, batch):
            sizes.append(len(batch))
            means = [float(image.mean()) for image in batch.images]
            return [float(sorted(means).index(mean)) for mean in means]

    with listening(create_app(Ranks(), "ranks")) as url:
        remote = load_reward("remote", {"url": url, "max_batch": 2})
        batch = RewardBatch([np.full((4, 4, 3), value, np.uint8) for value in (9, 1, 5)], ["a sign"] * 3, [{}] * 3)
        assert remote.kind == "group" and remote.score(batch) == [2.0, 0.0, 1.0]
    assert sizes == [3]
