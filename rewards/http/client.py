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

import base64
import io
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import requests
import urllib3
from PIL import Image

from blip3o_grpo.rewards.types import RewardBatch, RewardError, score

ENCODINGS = ("json", "multipart")
BACKOFF_S = 0.5
"""Pause before the second retry; doubles with each further one. The first retry is immediate."""
MAX_BACKOFF_S = 30
MAX_TIMEOUT_S = 86_400
MAX_ANSWER_BYTES = 2**20
"""Scores of a request need some 25 bytes an image."""
CHUNK_BYTES = 2**14
QUOTED_CHARACTERS = 500
"""Of a service's answer, in error messages."""


class RemoteReward:
    """Asks an HTTP service for the scores.

    Connection errors, time-outs and 5xx answers are retried, with growing pauses; all other failures are not. What
    remains a failure raises, and never becomes a score.

    Args:
        url: of the service, without `/score`: `http://HOST:PORT` or with a path.
        timeout: seconds to wait for the service to connect, to begin its answer, and to end it, per attempt; > 0.
        retries: attempts after the first, >= 0.
        token_env: name of an environment variable that holds a bearer token; None: no token.
        max_batch: most images in one request, >= 1; a service of a group reward gets whole groups all the same.
        encoding: `json` or `multipart` (a third fewer bytes).

    Raises:
        RewardError: an option out of range, the variable is not set, or the service does not answer `/health`.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        retries: int = 3,
        token_env: str | None = None,
        max_batch: int = 32,
        encoding: Literal["json", "multipart"] = "json",
    ) -> None:
        self.check_options(url, timeout, retries, token_env, max_batch, encoding)
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.max_batch = max_batch
        self._encode: Callable[[RewardBatch], dict[str, Any]] = _as_json if encoding == "json" else _as_form
        self.retries = retries
        self._session = _session(_token(token_env))
        self.kind = _kind(self._ask("GET", "/health"))

    @staticmethod
    def check_options(
        url: str,
        timeout: float = 60.0,
        retries: int = 3,
        token_env: str | None = None,
        max_batch: int = 32,
        encoding: Literal["json", "multipart"] = "json",
    ) -> None:
        """Check option values without asking the service; raises RewardError."""
        try:
            parts = urlsplit(str(url))
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no port
            valid = False
        if not valid or parts.query or parts.fragment:
            raise RewardError(f"remote url is {url!r}; it must look like http://HOST:PORT or https://HOST/PATH")
        if parts.username or parts.password:
            raise RewardError("remote url holds a user name or password; put a token into a variable, see token_env")
        if not 0 < timeout <= MAX_TIMEOUT_S:
            raise RewardError(f"remote timeout is {timeout}; it must be above 0 seconds and at most {MAX_TIMEOUT_S}")
        if retries < 0:
            raise RewardError(f"remote retries is {retries}; it must be at least 0")
        if max_batch < 1:
            raise RewardError(f"remote max_batch is {max_batch}; it must be at least 1")
        if encoding not in ENCODINGS:
            raise RewardError(f"unknown remote encoding {encoding!r}; the encodings are {', '.join(ENCODINGS)}")
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
        for attempt in range(self.retries + 1):
            if attempt > 1:
                time.sleep(min(BACKOFF_S * 2 ** (attempt - 2), MAX_BACKOFF_S))
            try:
                return self._ask_once(method, self.url + path, body)
            except _MayPassError as error:
                failure = error
        raise RewardError(str(failure)) from failure.__cause__

    def _ask_once(self, method: str, url: str, body: dict[str, Any]) -> bytes:
        """One attempt, which ends in about `timeout` seconds after the service has begun to answer."""
        options = {"timeout": self.timeout, "allow_redirects": False, "stream": True}  # the token goes to `url` alone
        try:
            with self._session.request(method, url, **options, **body) as response:
                content = self._read(response, url)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            raise _MayPassError(f"{url} did not answer: {error}") from error
        except requests.RequestException as error:
            raise RewardError(f"{url} did not answer: {error}") from error
        if response.status_code == 200:
            return content
        kind = _MayPassError if response.status_code >= 500 else RewardError
        raise kind(f"{url} answered {response.status_code} {response.reason[:80]}: {_quoted(content)}")

    def _read(self, response: requests.Response, url: str) -> bytes:
        content, deadline = b"", time.monotonic() + self.timeout
        while piece := response.raw.read1(CHUNK_BYTES, decode_content=False):  # never unpacked: it is asked for plain
            content += piece
            if len(content) > MAX_ANSWER_BYTES:
                raise RewardError(f"{url} answered more than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise _MayPassError(f"{url} did not finish its answer in time ({self.timeout} s)")
        return content


class _MayPassError(RewardError):
    """A failure of a moment: asking again may help."""


class _Bearer(requests.auth.AuthBase):
    """Sets the header itself, or `.netrc` would replace it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _session(token: str | None) -> requests.Session:
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    if token is not None:
        session.auth = _Bearer(token)
    return session


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
    return token


def _as_json(batch: RewardBatch) -> dict[str, Any]:
    images = [base64.b64encode(_png(image)).decode() for image in batch.images]
    return {"data": _dump(batch, images=images), "headers": {"Content-Type": "application/json"}}


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
    text = content[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace").strip()
    return text[:QUOTED_CHARACTERS] + ("..." if len(text) > QUOTED_CHARACTERS else "") or "(empty)"
