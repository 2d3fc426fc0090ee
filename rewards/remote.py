"""`remote`: a reward that runs behind HTTP, on another machine or in another language.

`GET URL/health` answers 200 when the service can score. `POST URL/score` takes prompts, metadata and PNG images, and
answers `{"scores": [float or null, ...]}`, one per image. With `encoding: json` the body is
`{"prompts": [...], "metadata": [...], "images": [base64 PNG, ...]}`; with `multipart` it is a form of one field
`request` (the same JSON without `images`) and one file `images` per image. PNG, because JPEG would change what is
scored. `rewards.server` is such a service for any reward of this project.

Left out on purpose: pickle (a service could run code here, and a client there), and scores for images that failed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import requests
from PIL import Image
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from rewards.types import RewardBatch, RewardError, score

ENCODINGS = ("json", "multipart")
BACKOFF_S = 0.5
"""Pause before the second retry; doubles with each further one. The first retry is immediate."""
MAX_BACKOFF_S = 30
QUOTED_CHARACTERS = 500
"""Of a service's answer, in error messages."""


class RemoteReward:
    """Asks an HTTP service for the scores.

    Connection errors, time-outs and 5xx answers are retried, with growing pauses; all other failures are not. What
    remains a failure raises, and never becomes a score.

    Args:
        url: of the service, without `/score`: `http://HOST:PORT` or with a path.
        timeout: seconds to wait for the service to connect, and to answer, per attempt; > 0.
        retries: attempts after the first, >= 0.
        token_env: name of an environment variable that holds a bearer token; None: no token.
        max_batch: most images in one request, >= 1.
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
        self._session = _session(retries, _token(token_env))
        self._ask("GET", "/health")

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
        if timeout <= 0:
            raise RewardError(f"remote timeout is {timeout}; it must be above 0 seconds")
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
        parts = [batch[start : start + self.max_batch] for start in range(0, len(batch), self.max_batch)]
        return [value for part in parts for value in score(self._score, part, f"{self.url}/score")]

    def _score(self, batch: RewardBatch) -> Any:
        response = self._ask("POST", "/score", **self._encode(batch))
        try:
            answer = response.json()
        except ValueError as error:
            raise RewardError(f"{response.url} answered no JSON: {_quoted(response)}") from error
        if not isinstance(answer, dict) or "scores" not in answer:
            raise RewardError(f'{response.url} answered no {{"scores": [...]}}: {_quoted(response)}')
        return answer["scores"]

    def _ask(self, method: str, path: str, **body: Any) -> requests.Response:
        url = self.url + path
        try:
            response = self._session.request(method, url, timeout=self.timeout, allow_redirects=False, **body)
        except requests.RequestException as error:
            raise RewardError(f"{url} did not answer: {error}") from error
        if response.status_code != 200:
            raise RewardError(f"{url} answered {response.status_code} {response.reason}: {_quoted(response)}")
        return response


class _Bearer(requests.auth.AuthBase):
    """Sets the header itself, or `.netrc` would replace it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _session(retries: int, token: str | None) -> requests.Session:
    retry = Retry(
        total=retries,
        allowed_methods=None,  # POST too: scoring an image twice changes nothing
        status_forcelist=range(500, 600),
        raise_on_status=False,  # the last answer says what is wrong
        respect_retry_after_header=False,
        backoff_factor=BACKOFF_S,
        backoff_max=MAX_BACKOFF_S,
    )
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    if token is not None:
        session.auth = _Bearer(token)
    return session


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


def _quoted(response: requests.Response) -> str:
    text = response.text.strip()
    return text[:QUOTED_CHARACTERS] + ("..." if len(text) > QUOTED_CHARACTERS else "") or "(empty)"
