"""`remote`: a reward that runs behind HTTP, on another machine or in another language.

`GET URL/health` answers 200 when the service can score; `{"kind": "group"}` asks for all images of a prompt in one
request. `POST URL/score` takes prompts, metadata and PNG images, and
answers `{"scores": [float or null, ...]}`, one per image. With `encoding: json` the body is
`{"prompts": [...], "metadata": [...], "images": [base64 PNG, ...]}`; with `multipart` it is a form of one field
`request` (the same JSON without `images`) and one file `images` per image. PNG, because JPEG would change what is
scored. `blip3o_grpo.rewards.http.server` is such a service for any reward of this project.

Left out on purpose: pickle (a service could run code here, and a client there), and scores for images that failed.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

from blip3o_grpo.rewards.http.failures import MayPassError, UnreachableError, one_line, translate
from blip3o_grpo.rewards.http.proxies import PROXIES, find_proxy, without_user
from blip3o_grpo.rewards.types import RewardBatch, RewardError, score

logger = logging.getLogger(__name__)

ENCODINGS = ("json", "multipart")
BACKOFF_S = 0.5
"""Pause before the second retry; doubles with each further one. The first retry is immediate."""
MAX_BACKOFF_S = 10
MAX_TIMEOUT_S = 86_400
MAX_ANSWER_BYTES = 2**20
"""Scores of a request need some 25 bytes an image."""
QUOTED_CHARACTERS = 500
"""Of a service's answer, in error messages."""


class RemoteReward:
    """Asks an HTTP service for the scores.

    A service that is not there (refused or broken connection, unknown host, 502 to 504) is asked again for `patience_s`
    seconds, one that is too slow or answers another 5xx `retries` times, both with growing pauses; all other failures
    are final. What remains a failure raises, and never becomes a score.

    Args:
        url: of the service, without `/score`: `http://HOST:PORT` or with a path.
        timeout: seconds that one attempt may take in all, from the host's name to the last byte of the answer; > 0.
        retries: attempts after the first, >= 0.
        patience_s: seconds to wait for a service that is not there, so that it may start or restart; >= 0.
        token_env: name of an environment variable that holds a bearer token; None: no token.
        max_batch: most images in one request, >= 1; a service of a group reward gets whole groups all the same.
        encoding: `json` or `multipart` (a third fewer bytes).
        proxy: when to go through the proxy that the environment names (`http_proxy`, `https_proxy`, `all_proxy`, less
            `no_proxy`): `public` (not to this machine and private networks), `always` or `never`.

    Raises:
        RewardError: an option out of range, the variable is not set, or the service does not answer `/health`.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        retries: int = 3,
        patience_s: float = 60.0,
        token_env: str | None = None,
        max_batch: int = 32,
        encoding: Literal["json", "multipart"] = "json",
        proxy: Literal["public", "always", "never"] = "public",
    ) -> None:
        self.check_options(url, timeout, retries, patience_s, token_env, max_batch, encoding, proxy)
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self.patience_s = patience_s
        self.max_batch = max_batch
        self._encode: Callable[[RewardBatch], dict[str, Any]] = _as_json if encoding == "json" else _as_form
        self._proxy = _run(find_proxy(self.url, proxy, timeout))
        self._http = _http(_token(token_env), self._proxy)
        self.kind = _kind(self._ask("GET", "/health"))

    @staticmethod
    def check_options(
        url: str,
        timeout: float = 60.0,
        retries: int = 3,
        patience_s: float = 60.0,
        token_env: str | None = None,
        max_batch: int = 32,
        encoding: Literal["json", "multipart"] = "json",
        proxy: Literal["public", "always", "never"] = "public",
    ) -> None:
        """Check option values without asking the service; raises RewardError."""
        try:
            parts = urlsplit(str(url))
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            valid = valid and bool(httpx.URL(str(url))) and bool(parts.hostname.encode("idna"))
        except (ValueError, httpx.InvalidURL):  # a port that is no port, a host that is no host
            valid = False
        if valid and (parts.username or parts.password):
            raise RewardError("remote url holds a user name or password; put a token into a variable, see token_env")
        if not valid or parts.query or parts.fragment:
            shown = without_user(str(url))
            raise RewardError(f"remote url is {shown!r}; it must look like http://HOST:PORT or https://HOST/PATH")
        if not 0 < timeout <= MAX_TIMEOUT_S:
            raise RewardError(f"remote timeout is {timeout}; it must be above 0 seconds and at most {MAX_TIMEOUT_S}")
        if retries < 0:
            raise RewardError(f"remote retries is {retries}; it must be at least 0")
        if not 0 <= patience_s <= MAX_TIMEOUT_S:
            raise RewardError(f"remote patience_s is {patience_s}; it must be 0 to {MAX_TIMEOUT_S} seconds")
        if max_batch < 1:
            raise RewardError(f"remote max_batch is {max_batch}; it must be at least 1")
        if encoding not in ENCODINGS:
            raise RewardError(f"unknown remote encoding {encoding!r}; the encodings are {', '.join(ENCODINGS)}")
        if proxy not in PROXIES:
            raise RewardError(f"unknown remote proxy {proxy!r}; it is one of {', '.join(PROXIES)}")
        if token_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", token_env):
            raise RewardError("remote token_env must be the name of an environment variable, not the token itself")

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """The service's scores; None where it says null.

        Raises:
            RewardError: naming the URL: no answer, an HTTP error, no JSON, or not one finite score per image.
        """
        size = len(batch) if self.kind == "group" else self.max_batch
        parts = [batch[start : start + size] for start in range(0, len(batch), size or 1)]
        return [value for part in parts for value in score(self._score, part, f"{self.url}/score")]

    def _score(self, batch: RewardBatch) -> Any:
        content = self._ask("POST", "/score", **self._encode(batch))
        url = f"{self.url}/score"
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RewardError(f"{url} answered no JSON: {_quoted(content)}") from error
        if not isinstance(answer, dict) or "scores" not in answer:
            raise RewardError(f'{url} answered no {{"scores": [...]}}: {_quoted(content)}')
        return answer["scores"]

    def _ask(self, method: str, path: str, **body: Any) -> bytes:
        """The service's answer; what may pass is asked again."""
        url, start, attempts, answered_badly = self.url + path, time.monotonic(), 0, 0
        gone_since: float | None = None
        while True:
            attempts += 1
            try:
                return _run(self._ask_once(method, url, body))
            except MayPassError as error:
                failure = error
            if isinstance(failure, UnreachableError):
                if gone_since is None:
                    gone_since = time.monotonic()
                    if self.patience_s:
                        logger.warning("%s %s; it is asked again for %g s (patience_s)", url, failure, self.patience_s)
                left = gone_since + self.patience_s - time.monotonic()
            else:
                gone_since, answered_badly = None, answered_badly + 1
                left = MAX_BACKOFF_S if answered_badly <= self.retries else 0
            if left <= 0:
                break
            time.sleep(0 if attempts == 1 else min(BACKOFF_S * 2 ** min(attempts - 2, 16), MAX_BACKOFF_S, left))
        tried = f"{attempts} attempt{'s' if attempts > 1 else ''} in {time.monotonic() - start:.1f} s"
        raise RewardError(f"{url} {failure} ({tried}); {self._advice(failure)}") from failure.__cause__

    def _advice(self, failure: MayPassError) -> str:
        """Which option changes what happened."""
        if isinstance(failure, UnreachableError):
            return f"start the service, or raise patience_s (now {self.patience_s:g})"
        if failure.slow:
            return f"raise timeout (now {self.timeout:g}), or lower max_batch (now {self.max_batch})"
        return f"the service's own log says more; retries is {self.retries}"

    async def _ask_once(self, method: str, url: str, body: dict[str, Any]) -> bytes:
        """One attempt, which ends in `timeout` seconds whatever the service does."""
        where = f"through the proxy {without_user(self._proxy)}, " if self._proxy else ""
        try:
            async with asyncio.timeout(self.timeout), self._http.stream(method, url, **body) as response:
                content = await _read(response, url)
        except TimeoutError as error:
            raise MayPassError(f"did not answer: {where}it took longer than {self.timeout:g} s", slow=True) from error
        except httpx.HTTPError as error:
            raise translate(error, url, where) from error
        if response.status_code == 200:
            return content
        answer = f"answered {where}{response.status_code} {one_line(response.reason_phrase[:80])}: {_quoted(content)}"
        if response.status_code in (502, 503, 504):  # a reverse proxy without its service, or a service that starts
            raise UnreachableError(answer)
        if response.status_code >= 500:
            raise MayPassError(answer)
        raise RewardError(f"{url} {answer}")


async def _read(response: httpx.Response, url: str) -> bytes:
    content = b""
    async for piece in response.aiter_raw():  # never unpacked: it is asked for plain
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            raise RewardError(f"{url} answered more than {MAX_ANSWER_BYTES} bytes")
    return content


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, one per process: a caller may be in a loop itself, and only here can one
    deadline end whatever an attempt waits for."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remote rewards", daemon=True).start()
    return loop


def _run(coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def _http(token: str | None, proxy: str | None) -> httpx.AsyncClient:
    headers = {"Accept-Encoding": "identity"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    try:
        return httpx.AsyncClient(
            headers=headers,
            timeout=None,  # one deadline for all of an attempt instead
            follow_redirects=False,  # the token goes to `url` alone
            trust_env=False,  # no .netrc, and only the proxy that `find_proxy` found
            verify=httpx.create_ssl_context(),
            proxy=proxy,
        )
    except (ValueError, httpx.InvalidURL) as error:  # `create_ssl_context` and the rest take what is given
        raise RewardError(f"remote: the environment's proxy {without_user(proxy or '')!r} is no URL") from error


def _kind(health: bytes) -> str:
    """What the service says of its reward: `group` scores the images of one prompt together; most say nothing."""
    try:
        answer = json.loads(health)
    except (ValueError, RecursionError):
        return "pointwise"
    return "group" if isinstance(answer, dict) and answer.get("kind") == "group" else "pointwise"


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise RewardError(f"remote token_env: the environment variable {variable} is not set, or empty")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise RewardError(f"remote token_env: the value of {variable} holds spaces or other characters no token has")
    return token


def _as_json(batch: RewardBatch) -> dict[str, Any]:
    images = [base64.b64encode(_png(image)).decode() for image in batch.images]
    return {"content": _dump(batch, images=images), "headers": {"Content-Type": "application/json"}}


def _as_form(batch: RewardBatch) -> dict[str, Any]:
    files = [("images", (f"{number}.png", _png(image), "image/png")) for number, image in enumerate(batch.images)]
    return {"files": files, "data": {"request": _dump(batch)}}


def _dump(batch: RewardBatch, **more: Any) -> str:
    try:
        metadata = [dict(values) for values in batch.metadata]
        return json.dumps({"prompts": list(batch.prompts), "metadata": metadata, **more}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RewardError(f"remote: prompt metadata that JSON cannot hold: {error}") from error


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _quoted(content: bytes) -> str:
    text = one_line(content[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace"))
    return text[:QUOTED_CHARACTERS] + ("..." if len(text) > QUOTED_CHARACTERS else "") or "(empty)"
