"""Malformed images, requests to a reward service, and its answers."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import httpx
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from blip3o_grpo.rewards import RewardBatch
from blip3o_grpo.rewards.http.client import RemoteReward
from blip3o_grpo.rewards.http.server import create_app
from blip3o_grpo.rewards.images import as_rgb, open_rgb
from tests.robustness.case import Case, World


def png(mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def made_png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *([(b"zTXt", extra)] if extra else []), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


IMAGES = [
    ("empty", b""),
    ("text", b"not an image"),
    ("cut off in the header", png()[:20]),
    ("cut off in the data", png(size=(64, 64))[:60]),
    ("no data", made_png(8, 8)),
    ("0 px wide", made_png(0, 8)),
    ("a bomb of 2.5 gigapixels", made_png(50_000, 50_000)),
    ("a bomb of 100 megapixels", made_png(10_000, 10_000)),
    ("a depth of 3 bit", made_png(8, 8, depth=3)),
    ("a bomb in a text", made_png(8, 8, extra=b"a\0\0" + zlib.compress(bytes(2_000_000)))),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(hello) print\n"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'),
    ("a GIF header", b"GIF89a" + bytes(20)),
    ("a JPEG header", b"\xff\xd8\xff\xe0" + bytes(20)),
    ("a TIFF header", b"II*\0" + bytes(20)),
    ("a WebP header", b"RIFF\0\0\0\0WEBPVP8 " + bytes(20)),
]

ARRAYS = [
    ("floats", np.zeros((8, 8, 3), np.float32), "float32 has no known range"),
    ("int64", np.zeros((8, 8, 3), np.int64), "int64 has no known range"),
    ("truths", np.zeros((8, 8, 3), bool), "bool has no known range"),
    ("no pixels", np.zeros((0, 8, 3), np.uint8), "has no pixels"),
    ("one dimension", np.zeros(8, np.uint8), "an image of shape (8,)"),
    ("a batch", np.zeros((2, 8, 8, 3), np.uint8), "an image of shape (2, 8, 8, 3)"),
    ("two channels", np.zeros((8, 8, 2), np.uint8), "an image of shape (8, 8, 2)"),
    ("five channels", np.zeros((8, 8, 5), np.uint8), "an image of shape (8, 8, 5)"),
    ("a list", [[0, 0], [0, 0]], "not list"),
    ("32-bit PIL", Image.new("I", (8, 8)), "mode 'I'"),
    ("float PIL", Image.new("F", (8, 8)), "mode 'F'"),
]


def _body(*images: bytes, **changes: object) -> dict:
    good = {"prompts": ["a"] * len(images), "metadata": [{}] * len(images)}
    return {**good, "images": [base64.b64encode(image).decode() for image in images], **changes}


JSON = {"Content-Type": "application/json"}
REQUESTS = [
    ("no JSON", {"content": b"{", "headers": JSON}, 422, "not valid JSON"),
    ("a list", {"json": []}, 422, "request"),
    ("nothing", {"content": b"", "headers": JSON}, 422, "not valid JSON"),
    ("very deep", {"content": b"[" * 9000, "headers": JSON}, 422, "not valid JSON"),
    ("no content type", {"content": b"{}"}, 415, "send application/json"),
    ("a pickle", {"content": b"\x80\x04.", "headers": {"Content-Type": "application/x-pickle"}}, 415, "pickle"),
    ("no prompts", {"json": {"metadata": [], "images": []}}, 422, "request: 'prompts' is required"),
    ("prompts a text", {"json": _body(png(), prompts="a")}, 422, "prompts"),
    ("prompts numbers", {"json": _body(png(), prompts=[5])}, 422, "prompts.0"),
    ("metadata texts", {"json": _body(png(), metadata=["a"])}, 422, "metadata.0"),
    ("images numbers", {"json": _body(png(), images=[5])}, 422, "images.0"),
    ("images no base64", {"json": _body(png(), images=["~"])}, 422, "images.0"),
    ("more prompts than images", {"json": _body(png(), prompts=["a", "b"])}, 422, "equally many"),
    ("too many images", {"json": _body(*[png()] * 5)}, 413, "5 images, more than 4"),
    ("too many bytes", {"content": b" " * 30_000, "headers": JSON}, 413, "larger than 20000 bytes"),
    ("too many pixels", {"json": _body(png(size=(100, 100)))}, 413, "10000 pixels in all"),
    ("16 bits", {"json": _body(made_png(8, 8, 16, data=bytes(8 * 49)))}, 422, "16 bits per channel"),
    ("transparency", {"json": _body(png("RGBA"))}, 422, "mode RGBA"),
    ("a palette", {"json": _body(png("P"))}, 422, "mode P"),
    ("a form without fields", {"files": {"x": b"1"}}, 422, "`request`"),
    ("a form of too many files", {"files": [("images", png())] * 5}, 400, "Too many files"),
    ("a form without a boundary", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "ndary"),
    *((f"image: {name}", {"json": _body(data)}, (413, 422), "image") for name, data in IMAGES),
]

ANSWERS = [
    ("no JSON", b"<h1>busy</h1>", "answered no JSON: <h1>busy</h1>"),
    ("nothing", b"", "answered no JSON: (empty)"),
    ("a list", b"[0.5, 0.5]", "answered no {"),
    ("no scores", b'{"score": [0.5, 0.5]}', "answered no {"),
    ("scores null", b'{"scores": null}', "returned NoneType instead of a list"),
    ("scores by name", b'{"scores": {"0": 1}}', "returned dict instead of a list"),
    ("too few", b'{"scores": [0.5]}', "returned 1 scores for 2 images"),
    ("too many", b'{"scores": [0.5, 0.5, 0.5]}', "returned 3 scores for 2 images"),
    ("NaN", b'{"scores": [0.5, NaN]}', "returned nan for prompt 'b'"),
    ("infinity", b'{"scores": [0.5, Infinity]}', "returned inf for prompt 'b'"),
    ("1e999", b'{"scores": [0.5, 1e999]}', "returned inf for prompt 'b'"),
    ("a number of 400 digits", b'{"scores": [0.5, ' + b"1" * 400 + b"]}", "returned inf for prompt 'b'"),
    ("a number of 5000 digits", b'{"scores": [0.5, ' + b"1" * 5000 + b"]}", "answered no JSON"),
    ("texts", b'{"scores": ["0.5", "0.5"]}', "returned '0.5' (str)"),
    ("truths", b'{"scores": [true, false]}', "returned True (bool)"),
    ("lists", b'{"scores": [[0.5], [0.5]]}', "returned [0.5] (list)"),
    ("very deep", b"[" * 100_000, "answered no JSON"),
    ("UTF-16", '{"scores"'.encode("utf-16"), "answered no JSON"),
    ("2 MB", b" " * 2_000_000, "answered more than 1048576 bytes"),
]


class Body(httpx.AsyncByteStream):
    """An answer's bytes."""

    def __init__(self, content: bytes):
        self.content = content

    async def __aiter__(self):
        yield self.content


def _open(content: bytes):
    return lambda world: world.call(open_rgb, world.write("spoilt.png", content))


def _request(request: dict, status: int | tuple[int, ...]):
    def act(world: World) -> str:
        if world.server is None:
            reward = type("Flat", (), {"__call__": lambda self, batch: [0.5] * len(batch)})()
            app = create_app(reward, "flat", max_request_bytes=20_000, max_pixels=4096, max_images=4)
            world.server = TestClient(app, raise_server_exceptions=False)
        response = world.server.post("/score", **request)
        assert response.status_code in (status if isinstance(status, tuple) else (status,)), response.text
        return response.json()["detail"]

    return act


def _answer(content: bytes):
    async def answer(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body(b"{}" if request.url.path.endswith("/health") else content))

    def act(world: World) -> str:
        real = httpx.AsyncHTTPTransport.handle_async_request
        httpx.AsyncHTTPTransport.handle_async_request = answer
        try:
            reward = RemoteReward("http://reward.example", timeout=5, retries=0, patience_s=0)
            images = [np.zeros((4, 4, 3), np.uint8)] * 2
            return world.call(reward, RewardBatch(images, ["a", "b"], [{}, {}]))
        finally:
            httpx.AsyncHTTPTransport.handle_async_request = real

    return act


CASES = [
    *(Case("image", name, _open(content), ("spoilt.png",)) for name, content in IMAGES),
    *(Case("array", name, lambda w, array=array: w.call(as_rgb, array), (says,)) for name, array, says in ARRAYS),
    *(Case("request", name, _request(request, status), (says,)) for name, request, status, says in REQUESTS),
    *(Case("answer", name, _answer(content), ("http://reward.example/score", says)) for name, content, says in ANSWERS),
]
