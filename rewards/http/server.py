"""Serves a reward over HTTP for `RemoteReward` of `client.py`, whose protocol it implements.

    python -m blip3o_grpo.rewards.http.server ocr --option variant=ned --port 8000

One call of the reward at a time; start several servers for more. Requests are bounded in bytes, images, pixels, time
and number. Not here: TLS, and time limits on headers, which a reverse proxy adds.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import ipaddress
import logging
import os
import secrets
import socket
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import uvicorn
import yaml
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from pydantic import Base64Bytes, BaseModel, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from blip3o_grpo.configs.mistakes import first_mistake
from blip3o_grpo.rewards.http.failures import one_line
from blip3o_grpo.rewards.http.png import PngHeader, read_header
from blip3o_grpo.rewards.redaction import redact
from blip3o_grpo.rewards.registry import build_reward
from blip3o_grpo.rewards.spec import adapt
from blip3o_grpo.rewards.types import Reward, RewardBatch, RewardError

MAX_REQUEST_BYTES = 64 * 1024**2
MAX_PIXELS = 64 * 1024**2
"""Of all images of a request together, once unpacked: 192 MiB."""
MAX_IMAGES = 1024
REQUEST_TIMEOUT_S = 60
"""For a request's body to arrive."""
MAX_CONNECTIONS = 64
BEARER = HTTPBearer(auto_error=False)

logger = logging.getLogger(__name__)


class ScoreRequest(BaseModel):
    """Body of a JSON request, or field `request` of a multipart one, whose images are files."""

    prompts: list[str]
    metadata: list[dict[str, Any]]
    images: list[Base64Bytes] = []


class BodyLimit:
    """ASGI middleware: stops reading a request body at `max_bytes`, whatever its headers claim."""

    def __init__(self, app: Callable[..., Awaitable[None]], max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        received = 0

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"the request is larger than {self.max_bytes} bytes; send fewer images")
            return message

        await self.app(scope, counted, send)


def create_app(
    reward: Reward,
    name: str,
    *,
    token: str | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    max_pixels: int = MAX_PIXELS,
    max_images: int = MAX_IMAGES,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> FastAPI:
    """The service: `GET /health` and `POST /score`.

    Args:
        reward: what computes the scores.
        name: how to call it in messages.
        token: bearer token every request must carry; None: none.
        max_request_bytes: largest request body.
        max_pixels: largest sum of the image areas of a request.
        max_images: most images of a request.
        timeout_s: for a request's body to arrive.

    Raises:
        RewardError: an empty token, or the reward compares with a run's starting policy, which a service does not know.
    """
    if token == "":
        raise RewardError("an empty token protects nothing; give one, or None")
    loaded = adapt(reward)
    if loaded.fits_reference:
        raise RewardError(f"reward {name!r} is fitted to each run's own images; it cannot be served to several runs")
    turn = asyncio.Lock()

    def authorise(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        given = credentials.credentials if credentials else ""
        if token is not None and not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "the bearer token is missing or wrong", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(title=f"reward {name}", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit, max_bytes=max_request_bytes)

    @app.exception_handler(AnyHTTPException)
    async def refuse(request: Request, error: AnyHTTPException) -> Response:
        who = request.client.host if request.client else "?"
        what = "failed" if error.status_code >= 500 else "refused"
        logger.warning(
            one_line(f"{what} {request.method} {request.url.path} of {who}: {error.status_code} {error.detail}")
        )
        return await http_exception_handler(request, error)

    @app.get("/health", dependencies=[Depends(authorise)])
    async def health() -> dict[str, str]:
        return {"reward": name, "kind": loaded.kind}

    @app.post("/score", dependencies=[Depends(authorise)])
    async def score_images(request: Request) -> dict[str, list[float | None]]:
        try:
            async with asyncio.timeout(timeout_s):
                asked, pngs = await _read(request, max_images)
        except TimeoutError as error:
            raise HTTPException(408, f"the request did not arrive within {timeout_s} s") from error
        async with turn:  # unpacked images, too, are held for one request at a time
            batch = await run_in_threadpool(_decode, asked, pngs, max_pixels)
            try:
                scores = await run_in_threadpool(loaded.score, batch, name)
            except Exception as error:  # whatever the reward raises: the client must see a failure, never a score
                logger.error("reward %r failed\n%s", name, redact(traceback.format_exc()))
                raise HTTPException(500, redact(f"{type(error).__name__}: {error}")) from error
        return {"scores": scores}

    return app


async def _read(request: Request, max_images: int) -> tuple[ScoreRequest, list[bytes]]:
    """The request and its PNG files, from either encoding; HTTPException 4xx says what is wrong with it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            asked = ScoreRequest.model_validate_json(await request.body())
            if len(asked.images) > max_images:
                raise HTTPException(413, f"{len(asked.images)} images, more than {max_images}; send fewer images")
            return asked, asked.images
        if kind == "multipart/form-data":
            async with request.form(max_files=max_images, max_fields=8, max_part_size=MAX_REQUEST_BYTES) as form:
                pngs = [await file.read() for file in form.getlist("images")]
                return ScoreRequest.model_validate_json(form["request"]), pngs
    except ValidationError as error:
        raise HTTPException(422, f"request: {_mistake(error)}") from error
    except (AttributeError, KeyError) as error:
        raise HTTPException(422, "the form needs a text field `request` and files `images`") from error
    raise HTTPException(415, f"content type {kind!r}; send application/json or multipart/form-data")


def _mistake(error: ValidationError) -> str:
    """The first mistake of a request's body, whose values may be long."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"not valid JSON ({first['ctx']['error']})"
    if first["type"].startswith("base64"):
        return f"{'.'.join(map(str, first['loc']))!r} is no base64 (RFC 4648)"
    return first_mistake(error, json=True)


def _decode(asked: ScoreRequest, pngs: list[bytes], max_pixels: int) -> RewardBatch:
    """Unpack the images, none before the sizes of all are known.

    Pillow reads a PNG's header and refuses more than 2 x `Image.MAX_IMAGE_PIXELS` by itself; the sum is ours.
    """
    opened = []
    for number, png in enumerate(pngs):
        try:
            opened.append((Image.open(io.BytesIO(png), formats=["PNG"]), read_header(png)))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise HTTPException(422, f"images.{number} is no readable PNG: {error}") from error
    pixels = sum(header.width * header.height for _, header in opened)
    if pixels > max_pixels:
        raise HTTPException(413, f"the images have {pixels} pixels in all, more than {max_pixels}; send fewer images")
    try:
        images = [_unpack(image, header, number) for number, (image, header) in enumerate(opened)]
        return RewardBatch(images, asked.prompts, asked.metadata)
    except RewardError as error:
        raise HTTPException(422, str(error)) from error


def _unpack(image: Image.Image, header: PngHeader, number: int) -> np.ndarray:
    if image.mode != "RGB":
        raise HTTPException(422, f"images.{number} has mode {image.mode}; send 8-bit RGB")
    if header.bit_depth != 8:  # Pillow would cut 16 bits down without a word
        raise HTTPException(422, f"images.{number} has {header.bit_depth} bits per channel; send 8-bit RGB")
    if header.transparent:
        raise HTTPException(422, f"images.{number} has a transparent colour; send 8-bit RGB without one")
    if header.animated:
        raise HTTPException(422, f"images.{number} is an animation; send one picture")
    try:
        return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise HTTPException(422, f"images.{number} is no readable PNG: {error}") from error


def check_exposure(host: str, token: str | None) -> None:
    """Refuse to listen to other machines without a token.

    Raises:
        RewardError: naming the address.
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not token:
        raise RewardError(f"{host} can be reached from other machines: give a token with --token-env")


def serve(
    target: Annotated[str, typer.Argument(help="Registered name, or module:name (working folder first).")],
    option: Annotated[list[str] | None, typer.Option(help="Constructor option: name=value.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    token_env: Annotated[str | None, typer.Option(help="Environment variable that holds the bearer token.")] = None,
) -> None:
    """Serve a reward to `type: remote` rewards of other processes."""
    try:
        token = os.environ.get(token_env) if token_env else None
        if token_env and not token:
            raise RewardError(f"the environment variable {token_env} is not set, or empty")
        check_exposure(host, token)
        options = dict(_option(text) for text in option or [])
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
        app = create_app(build_reward(target, options, Path.cwd()), target, token=token)
    except RewardError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", limit_concurrency=MAX_CONNECTIONS, server_header=False
    )
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        known = error.errno is not None and error.errno > 0  # of a name that is not found it is not the system's
        reason = os.strerror(error.errno) if known else error.strerror
        typer.echo(f"error: cannot listen on {host}, port {port}: {reason}", err=True)
        raise typer.Exit(2) from None
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    access = "every request needs the token" if token else "without a token"
    version = importlib.metadata.version("blip3o-grpo")
    server = _Server(config, f"serving reward {target} on {address} (blip3o-grpo {version}, {access})")
    with suppress(KeyboardInterrupt):  # how a server is ended
        server.run(sockets=[listening])
    typer.echo("stopped serving", err=True)


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        typer.echo(self._ready, err=True)


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise RewardError(f"option {text!r}: expected name=value, for example variant=ned")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    typer.run(serve)
