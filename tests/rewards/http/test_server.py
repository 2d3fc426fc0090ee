"""The reward service refuses what it should, says why, and never invents a score."""

import asyncio
import base64
import importlib.metadata
import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib

import httpx
import pytest
import typer
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.guard.reference import ReferenceGuard
from blip3o_grpo.rewards.http.server import check_exposure, create_app, serve


class Brightness:
    def __call__(self, batch):
        if "break" in batch.prompts:
            raise OSError("the model is gone")
        if "half" in batch.prompts:
            return [0.5]
        return [float(image.mean()) for image in batch.images]


@pytest.fixture(scope="module")
def client():
    app = create_app(Brightness(), "brightness", max_request_bytes=20_000, max_pixels=4 * 64 * 64, max_images=8)
    return TestClient(app, raise_server_exceptions=False)


def png(size=8, value=7, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value if mode == "L" else (value,) * len(mode)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(side=50_000):
    """A PNG of a hundred bytes that unpacks to 7.5 GB."""
    return SIGNATURE + ihdr(side, 8, 2) + chunk(b"IDAT", zlib.compress(b"")) + END


def chunk(kind, data, checksum=None):
    sum_ = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)


def ihdr(side, depth, colour, interlaced=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlaced))


FLAT = "class Flat:\n    def __call__(self, batch):\n        return [0.5] * len(batch)\n"

SIGNATURE, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
DEEP = chunk(b"IDAT", zlib.compress(bytes(4 * 25)))
"""4 x 4 px of 16-bit RGB."""
PLAIN = chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
TEXT = chunk(b"tEXt", b"a\0b")


def body_of(images, prompts=None):
    prompts = prompts or ["a sign"] * len(images)
    return {
        "prompts": prompts,
        "metadata": [{}] * len(prompts),
        "images": [base64.b64encode(image).decode() for image in images],
    }


def refused(response, status, *words):
    assert response.status_code == status, response.text
    for word in words:
        assert word in response.json()["detail"]


def test_scores_come_back_in_both_encodings(client):
    images = [png(value=3), png(value=200)]
    assert client.post("/score", json=body_of(images)).json() == {"scores": [3.0, 200.0]}
    fields = {"request": json.dumps({"prompts": ["a", "b"], "metadata": [{}, {}]})}
    files = [("images", ("0.png", image, "image/png")) for image in images]
    assert client.post("/score", data=fields, files=files).json() == {"scores": [3.0, 200.0]}
    assert client.post("/score", json=body_of([])).json() == {"scores": []}
    assert client.get("/health").json() == {"reward": "brightness", "kind": "pointwise"}


@pytest.mark.parametrize(
    ("image", "status", "words"),
    [
        (b"no image", 422, "images.0 is no readable PNG"),
        (png()[:40], 422, "images.0 is no readable PNG"),
        (b"GIF89a" + bytes(50), 422, "images.0 is no readable PNG"),
        (png(mode="RGBA"), 422, "images.0 has mode RGBA; send 8-bit RGB"),
        (png(mode="L"), 422, "images.0 has mode L"),
        (png(size=200), 413, "40000 pixels in all, more than 16384"),
        (bomb(), 422, "could be decompression bomb"),
        (bomb(9_000), 413, "81000000 pixels in all"),
        (SIGNATURE + ihdr(4, 16, 2) + DEEP + END, 422, "16 bits per channel"),
        (SIGNATURE + TEXT + ihdr(4, 16, 2) + DEEP + END, 422, "its first chunk, and no other, must be IHDR"),
        (SIGNATURE + TEXT + ihdr(4, 8, 2) + PLAIN + END, 422, "its first chunk, and no other, must be IHDR"),
        (SIGNATURE + ihdr(4, 8, 2) + ihdr(4, 16, 2) + DEEP + END, 422, "its first chunk, and no other"),
        (SIGNATURE + ihdr(4, 16, 0) + DEEP + END, 422, "has mode I;16"),
        (SIGNATURE + ihdr(4, 16, 6) + DEEP + END, 422, "has mode RGBA"),
        (SIGNATURE + ihdr(4, 8, 2) + chunk(b"tRNS", bytes(6)) + PLAIN + END, 422, "has a transparent colour"),
        (SIGNATURE + ihdr(4, 8, 2) + chunk(b"acTL", bytes(7) + b"\1" + bytes(4)) + PLAIN + END, 422, ""),
        (SIGNATURE + ihdr(4, 8, 2) + PLAIN, 422, "it is cut off"),
        (SIGNATURE + ihdr(4, 8, 2) + PLAIN[:-1], 422, ""),
        (
            SIGNATURE + ihdr(4, 8, 2) + chunk(b"IDAT", zlib.compress(bytes(52)), 7) + END,
            422,
            "IDAT has a wrong check sum",
        ),
        (SIGNATURE + ihdr(4, 8, 2) + chunk(b"IDAT", zlib.compress(bytes(40))) + END, 422, "no readable PNG"),
        (SIGNATURE + ihdr(4, 8, 2) + END, 422, "no readable PNG"),
    ],
)
def test_images_it_cannot_take(client, image, status, words):
    refused(client.post("/score", json=body_of([image])), status, words)


@pytest.mark.parametrize(
    "image",
    [
        SIGNATURE + ihdr(4, 8, 2) + PLAIN + END,
        SIGNATURE + ihdr(4, 8, 2) + TEXT + PLAIN[:8] + PLAIN[8:] + TEXT + END + b"what follows the end",
        SIGNATURE + ihdr(4, 8, 2, 1) + chunk(b"IDAT", zlib.compress(bytes(52 + 8))) + END,
        SIGNATURE + ihdr(4, 8, 2) + chunk(b"PLTE", bytes(3)) + PLAIN + END,
    ],
)
def test_images_it_can_take(client, image):
    """Interlaced ones, and those with chunks that change no pixel."""
    assert client.post("/score", json=body_of([image])).json() == {"scores": [0.0]}


def test_requests_it_cannot_take(client):
    refused(
        client.post("/score", json=body_of([png()], ["a", "b"])), 422, "equally many images, prompts", "got 1, 2 and 2"
    )
    refused(client.post("/score", json={"prompts": ["a"]}), 422, "request: 'metadata' is required")
    refused(client.post("/score", json={**body_of([png()]), "images": [3]}), 422, "images.0")
    refused(client.post("/score", json={**body_of([png()]), "images": ["é"]}), 422, "images.0")
    as_json = {"Content-Type": "application/json"}
    refused(client.post("/score", content=b"[" * 10_000, headers=as_json), 422, "request: not valid JSON")
    refused(client.post("/score", content=b"\x80\x04pickle"), 415, "send application/json or multipart/form-data")
    refused(client.post("/score", data={"other": "1"}, files={"images": png()}), 422, "a text field `request`")
    refused(
        client.post("/score", data={"request": "{}"}, files={"images": png()}), 422, "request: 'prompts' is required"
    )
    refused(client.post("/score", files={"request": b"{}", "images": png()}), 422, "request: ")
    text = {"request": json.dumps({"prompts": ["a"], "metadata": [{}]}), "images": "text"}
    refused(client.post("/score", data=text, files={"other": b"1"}), 422, "files `images`")
    broken = {"Content-Type": "multipart/form-data"}
    refused(client.post("/score", content=b"abc", headers=broken), 400, "oundary")


@pytest.mark.parametrize("claim", [True, False])
def test_large_bodies_are_refused(client, claim):
    """Whether their length is announced or not."""
    headers = {"Content-Type": "application/json"} | ({"Content-Length": "1000000"} if claim else {})
    pieces = (b"x" * 1_000 for _ in range(1_000))
    refused(client.post("/score", content=pieces, headers=headers), 413, "larger than 20000 bytes")


def test_a_request_has_an_end():
    """A body that never ends, however small its pieces."""

    async def pieces():
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async def ask():
        app = create_app(Brightness(), "brightness", timeout_s=0.1)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://server") as client:
            return await client.post("/score", content=pieces(), headers={"Content-Type": "application/json"})

    refused(asyncio.run(ask()), 408, "did not arrive within 0.1 s")


def test_images_are_counted_and_not_cut_down(client):
    refused(client.post("/score", json=body_of([png()] * 9)), 413, "9 images, more than 8")
    files = [("images", png())] * 9
    refused(client.post("/score", files=files), 400, "Too many files")


def test_an_empty_token_is_none():
    with pytest.raises(RewardError, match="an empty token protects nothing"):
        create_app(Brightness(), "brightness", token="")


def test_a_reward_that_fails_is_a_server_error(client):
    refused(client.post("/score", json=body_of([png()], ["break"])), 500, "OSError: the model is gone")
    refused(client.post("/score", json=body_of([png()] * 2, ["half", "b"])), 500, "returned 1 scores for 2 images")


def test_the_token_is_required_everywhere():
    client = TestClient(create_app(Brightness(), "brightness", token="s3cret"))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
        refused(client.get("/health", headers=headers), 401, "token is missing or wrong")
        refused(client.post("/score", json=body_of([png()]), headers=headers), 401, "token is missing or wrong")
    assert client.get("/health", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_every_refused_request_is_a_line(caplog):
    """With its reason, without the token, and whatever is in the path."""
    client = TestClient(create_app(Brightness(), "brightness", token="s3cret"), raise_server_exceptions=False)
    client.get("/health", headers={"Authorization": "Bearer gu3ss"})
    client.get("/other%0Bforged line%1b[2J", headers={"Authorization": "Bearer gu3ss"})
    client.post("/score", headers={"Authorization": "Bearer s3cret"})
    client.post("/score", headers={"Authorization": "Bearer s3cret"}, json=body_of([png()], ["break"]))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == [
        "refused GET /health of testclient: 401 the bearer token is missing or wrong",
        "refused GET /other forged line?[2J of testclient: 404 Not Found",
        "refused POST /score of testclient: 415 content type ''; send application/json or multipart/form-data",
        "failed POST /score of testclient: 500 OSError: the model is gone",
    ]


def test_the_server_says_where_it_listens_and_whom_it_refused(tmp_path):
    (tmp_path / "flat_reward.py").write_text(FLAT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "blip3o_grpo.rewards.http.server", "flat_reward:Flat", "--port", str(port)]
    environment = {**os.environ, "TOKEN": "s3cret", "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [*command, "--token-env", "TOKEN"], stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            about = f"(blip3o-grpo {importlib.metadata.version('blip3o-grpo')}, every request needs the token)"
            assert server.stderr.readline() == f"serving reward flat_reward:Flat on http://127.0.0.1:{port} {about}\n"
            assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=60).status_code == 401
            line = server.stderr.readline()
            assert line.endswith("refused GET /health of 127.0.0.1: 401 the bearer token is missing or wrong\n")
            second = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
            assert second.returncode == 2
            assert second.stderr == f"error: cannot listen on 127.0.0.1, port {port}: Address already in use\n"
        finally:
            server.terminate()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_this_machine_needs_no_token(host):
    check_exposure(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "gpu-node-3", ""])
def test_other_machines_need_one(host):
    with pytest.raises(RewardError, match="can be reached from other machines"):
        check_exposure(host, None)
    check_exposure(host, "s3cret")


def test_a_reward_fitted_to_a_run_is_not_served():
    with pytest.raises(RewardError, match="cannot be served"):
        create_app(ReferenceGuard(), "reference_guard")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ocrr"], "did you mean 'ocr'?"),
        (["ocr", "--option", "varient=ned"], "did you mean 'variant'?"),
        (["ocr", "--option", "variant"], "expected name=value"),
        (["ocr", "--host", "0.0.0.0"], "give a token with --token-env"),
        (["ocr", "--token-env", "A_VARIABLE_NOBODY_SET"], "A_VARIABLE_NOBODY_SET is not set"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, message):
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
