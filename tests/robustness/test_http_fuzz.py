"""Services that lie in any way hypothesis makes up: the client ends in time, with the right scores or one sentence."""

import time

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardBatch, RewardError
from blip3o_grpo.rewards.http.client import RemoteReward
from tests.rewards.http.speaking import OK, speaking

BUDGET_S = 10
TIMEOUT_S = 0.2
GRACE_S = 2.0
"""Beyond what the options allow, for a machine under load."""
SCORES = b'{"scores": [0.25, null]}'
BATCH = RewardBatch([np.zeros((2, 2, 3), np.uint8)] * 2, ["a", "b"], [{}, {}])

lines = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 500 Broken", b"HTTP/1.1 503 Busy", b"HTTP/1.1 302 Found",
     b"HTTP/1.1 100 Continue", b"HTTP/1.1 204 No Content", b"HTTP/1.1 999 Odd", b"HTTP/9 200 OK", b"", b"\xff\xfe"]
)  # fmt: skip
headers = st.just([b"Content-Length: 24"]) | st.lists(
    st.sampled_from(
        [b"Content-Length: 24", b"Content-Length: 24", b"Content-Length: 5", b"Content-Length: 999999",
         b"Content-Length: -1", b"Content-Length: 5\r\nContent-Length: 24", b"Transfer-Encoding: chunked",
         b"Connection: close", b"Connection: keep-alive", b"Content-Encoding: gzip", b"Location: http://127.0.0.1:9/",
         b"Upgrade: other", b"no header", b"A: " + b"x" * 200_000]
    ),
    max_size=3,
)  # fmt: skip
bodies = st.sampled_from(
    [SCORES, SCORES, SCORES, b"", b"{", b'{"scores": [1]}', b'{"scores": [1e999, 1]}', b"[]", b"\xff" * 24,
     b"18\r\n" + SCORES + b"\r\n0\r\n\r\n", b"18\r\n" + SCORES, b"fffffffff\r\n", b" " * 2_000_000]
)  # fmt: skip
pauses = st.sampled_from([0, 0, 0, 0.05, 0.5])
ends = st.sampled_from(["close", "stay"])


@st.composite
def behaviours(draw):
    """What is sent to whoever asks for scores: pieces with pauses before each, and what happens then."""
    answer = draw(lines) + b"\r\n" + b"".join(header + b"\r\n" for header in draw(headers)) + b"\r\n" + draw(bodies)
    cut = draw(st.integers(0, min(len(answer), 300)))
    return draw(st.booleans()), [(draw(pauses), answer[:cut]), (draw(pauses), answer[cut:])], draw(ends)


def speak(connection, behaviour):
    reads_first, pieces, end = behaviour
    connection.settimeout(1)
    asked = connection.recv(2**16) if reads_first else b""
    if asked.startswith(b"GET"):
        connection.sendall(OK)
        asked = b""
        while not asked.endswith(b"]}"):  # all of it: what is left unread breaks the connection
            asked += connection.recv(2**16)
    for pause, piece in pieces:
        time.sleep(pause)
        connection.sendall(piece)
    if end == "stay":
        time.sleep(1)


def test_a_service_may_do_what_it_likes():
    end = time.monotonic() + BUDGET_S
    scored = []

    @settings(max_examples=120, deadline=None, database=None)
    @example((True, [(0, b"HTTP/1.1 200 OK\r\n"), (0.05, b"Content-Length: 24\r\n\r\n" + SCORES)], "close"))
    @given(behaviours())
    def check(behaviour):
        if time.monotonic() > end:
            return
        with speaking(lambda connection: speak(connection, behaviour)) as url:
            start = time.monotonic()
            try:
                reward = RemoteReward(url, timeout=TIMEOUT_S, retries=0, patience_s=0.1)
                assert reward(BATCH) == [0.25, None]
                scored.append(behaviour)
            except RewardError as error:
                assert url in str(error) and str(error).isprintable()
            assert time.monotonic() - start < 2 * TIMEOUT_S + 2 * 0.1 + GRACE_S

    check()
    assert scored
