"""Asks an HTTP service until it answers, may not answer any more, or says no; shared by all rewards behind HTTP.

One deadline ends an attempt whatever the service does. A service that is not there is asked again for a while, one that
is slow or answers badly so many times, both with growing pauses; everything else is final, and raised in one line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Coroutine
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from blip3o_grpo.rewards.http.failures import MayPassError, UnreachableError, one_line, translate
from blip3o_grpo.rewards.http.proxies import PROXIES, find_proxy, without_user
from blip3o_grpo.rewards.types import RewardError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

BACKOFF_S = 0.5
"""Pause before the second retry; doubles with each further one. The first retry is immediate."""
MAX_BACKOFF_S = 10
MAX_TIMEOUT_S = 86_400
MAX_ANSWER_BYTES = 2**20
"""Scores of a request need some 25 bytes an image, a judge's answer rarely more than a page."""
QUOTED_CHARACTERS = 500
"""Of a service's answer, in error messages."""
TOO_MANY_REQUESTS = 429


class RefusedError(RewardError):
    """The service is there and said no."""

    def __init__(self, message: str, status: int, content: bytes) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP."""
        self.content = content
        """What it answered."""

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.status, self.content)


class Transport:
    """Connections to one service.

    Args:
        name: of the reward, in messages.
        url: of the service; paths are added to it.
        timeout: seconds that one attempt may take in all, from the host's name to the last byte of the answer; > 0.
        retries: attempts after the first, >= 0.
        patience_s: seconds to wait for a service that is not there, so that it may start or restart; >= 0.
        token_env: name of an environment variable that holds a bearer token; None: no token.
        proxy: one of `PROXIES`.
        advice: which option changes what happened, in words.
        busy: further status codes that say "later".

    Raises:
        RewardError: the variable is not set, or the environment's proxy is unknown.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        timeout: float,
        retries: int,
        patience_s: float,
        token_env: str | None,
        proxy: str,
        advice: Callable[[MayPassError], str],
        busy: Collection[int] = (),
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self.patience_s = patience_s
        self._advice = advice
        self._busy = busy
        self._proxy = run(find_proxy(self.url, proxy, timeout))
        self._token, self._token_env = read_token(name, token_env), token_env
        self._http = _http(name, self._token, self._proxy)

    async def ask(self, method: str, path: str, **body: Any) -> bytes:
        """The service's answer; what may pass is asked again.

        Raises:
            RewardError: naming the URL, in one line; `RefusedError` where the service said no.
        """
        url, start, attempts, answered_badly = self.url + path, time.monotonic(), 0, 0
        gone_since: float | None = None
        while True:
            attempts += 1
            try:
                return await self._ask_once(method, url, body)
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
            await asyncio.sleep(
                0 if attempts == 1 else min(BACKOFF_S * 2 ** min(attempts - 2, 16), MAX_BACKOFF_S, left)
            )
        tried = f"{attempts} attempt{'s' if attempts > 1 else ''} in {time.monotonic() - start:.1f} s"
        raise RewardError(f"{url} {failure} ({tried}); {self._advice(failure)}") from failure.__cause__

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
        if self._token is not None:  # some services repeat a token that they refuse
            content = content.replace(self._token.encode(), f"[{self._token_env}]".encode())
        answer = f"answered {where}{response.status_code} {one_line(response.reason_phrase[:80])}: {quoted(content)}"
        if response.status_code in (502, 503, 504):  # a reverse proxy without its service, or a service that starts
            raise UnreachableError(answer)
        if response.status_code >= 500 or response.status_code in self._busy:
            raise MayPassError(answer)
        raise RefusedError(f"{url} {answer}", response.status_code, content)


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


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The coroutine's result, from the loop that all connections of this process live in."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


def check_service(
    name: str, url: str, timeout: float, retries: int, patience_s: float, token_env: str | None, proxy: str
) -> None:
    """Check how a service is to be asked without asking it.

    Raises:
        RewardError: an option out of range, a URL that is none or that holds a secret.
    """
    try:
        parts = urlsplit(str(url))
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        valid = valid and bool(httpx.URL(str(url))) and bool(parts.hostname.encode("idna"))
    except (ValueError, httpx.InvalidURL):  # a port that is no port, a host that is no host
        valid = False
    if valid and (parts.username or parts.password):
        raise RewardError(f"{name} url holds a user name or password; put a token into a variable, see token_env")
    if not valid or parts.query or parts.fragment:
        shown = without_user(str(url))
        raise RewardError(f"{name} url is {shown!r}; it must look like http://HOST:PORT or https://HOST/PATH")
    if not 0 < timeout <= MAX_TIMEOUT_S:
        raise RewardError(f"{name} timeout is {timeout}; it must be above 0 seconds and at most {MAX_TIMEOUT_S}")
    if retries < 0:
        raise RewardError(f"{name} retries is {retries}; it must be at least 0")
    if not 0 <= patience_s <= MAX_TIMEOUT_S:
        raise RewardError(f"{name} patience_s is {patience_s}; it must be 0 to {MAX_TIMEOUT_S} seconds")
    if proxy not in PROXIES:
        raise RewardError(f"unknown {name} proxy {proxy!r}; it is one of {', '.join(PROXIES)}")
    if token_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", token_env):
        raise RewardError(f"{name} token_env must be the name of an environment variable, not the token itself")


def read_token(name: str, variable: str | None) -> str | None:
    """The token that an environment variable holds; None: none is asked for.

    Raises:
        RewardError: it is not set, or holds what no token can be.
    """
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise RewardError(f"{name} token_env: the environment variable {variable} is not set, or empty")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise RewardError(f"{name} token_env: the value of {variable} holds spaces or other characters no token has")
    return token


def quoted(content: bytes) -> str:
    """The beginning of a service's answer, in one line."""
    text = one_line(content[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace"))
    return text[:QUOTED_CHARACTERS] + ("..." if len(text) > QUOTED_CHARACTERS else "") or "(empty)"


def _http(name: str, token: str | None, proxy: str | None) -> httpx.AsyncClient:
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
        raise RewardError(f"{name}: the environment's proxy {without_user(proxy or '')!r} is no URL") from error
