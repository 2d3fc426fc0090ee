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
import json
from collections.abc import Callable
from typing import Any, Literal

from blip3o_grpo.rewards.http.encode import encode_png
from blip3o_grpo.rewards.http.failures import MayPassError, UnreachableError
from blip3o_grpo.rewards.http.transport import Transport, check_service, quoted, run
from blip3o_grpo.rewards.types import RewardBatch, RewardError, score

ENCODINGS = ("json", "multipart")


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
        self.max_batch = max_batch
        self._encode: Callable[[RewardBatch], dict[str, Any]] = _as_json if encoding == "json" else _as_form
        self._transport = Transport(
            "remote",
            self.url,
            timeout=timeout,
            retries=retries,
            patience_s=patience_s,
            token_env=token_env,
            proxy=proxy,
            advice=self._advice,
        )
        self.kind = _kind(run(self._transport.ask("GET", "/health")))

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
        check_service("remote", url, timeout, retries, patience_s, token_env, proxy)
        if max_batch < 1:
            raise RewardError(f"remote max_batch is {max_batch}; it must be at least 1")
        if encoding not in ENCODINGS:
            raise RewardError(f"unknown remote encoding {encoding!r}; the encodings are {', '.join(ENCODINGS)}")

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """The service's scores; None where it says null.

        Raises:
            RewardError: naming the URL: no answer, an HTTP error, no JSON, or not one finite score per image.
        """
        size = len(batch) if self.kind == "group" else self.max_batch
        parts = [batch[start : start + size] for start in range(0, len(batch), size or 1)]
        return [value for part in parts for value in score(self._score, part, f"{self.url}/score")]

    def _score(self, batch: RewardBatch) -> Any:
        content = run(self._transport.ask("POST", "/score", **self._encode(batch)))
        url = f"{self.url}/score"
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RewardError(f"{url} answered no JSON: {quoted(content)}") from error
        if not isinstance(answer, dict) or "scores" not in answer:
            raise RewardError(f'{url} answered no {{"scores": [...]}}: {quoted(content)}')
        return answer["scores"]

    def _advice(self, failure: MayPassError) -> str:
        """Which option changes what happened."""
        if isinstance(failure, UnreachableError):
            return f"start the service, or raise patience_s (now {self._transport.patience_s:g})"
        if failure.slow:
            return f"raise timeout (now {self._transport.timeout:g}), or lower max_batch (now {self.max_batch})"
        return f"the service's own log says more; retries is {self._transport.retries}"


def _kind(health: bytes) -> str:
    """What the service says of its reward: `group` scores the images of one prompt together; most say nothing."""
    try:
        answer = json.loads(health)
    except (ValueError, RecursionError):
        return "pointwise"
    return "group" if isinstance(answer, dict) and answer.get("kind") == "group" else "pointwise"


def _as_json(batch: RewardBatch) -> dict[str, Any]:
    images = [base64.b64encode(encode_png(image)).decode() for image in batch.images]
    return {"content": _dump(batch, images=images), "headers": {"Content-Type": "application/json"}}


def _as_form(batch: RewardBatch) -> dict[str, Any]:
    files = [("images", (f"{number}.png", encode_png(image), "image/png")) for number, image in enumerate(batch.images)]
    return {"files": files, "data": {"request": _dump(batch)}}


def _dump(batch: RewardBatch, **more: Any) -> str:
    try:
        metadata = [dict(values) for values in batch.metadata]
        return json.dumps({"prompts": list(batch.prompts), "metadata": metadata, **more}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RewardError(f"remote: prompt metadata that JSON cannot hold: {error}") from error
