"""What went wrong between client and service, in plain words, and whether asking again may help."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

import httpx

from blip3o_grpo.rewards.types import RewardError


class MayPassError(RewardError):
    """A failure of a moment: asking again may help."""

    def __init__(self, message: str, slow: bool = False) -> None:
        super().__init__(message)
        self.slow = slow
        """It ran out of its time."""


class UnreachableError(MayPassError):
    """Nobody is there: a service that starts, restarts or is gone."""


def one_line(text: str) -> str:
    """A stranger's words in one line that steers no terminal: a space for white space, `?` for control codes."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def translate(error: httpx.HTTPError, url: str, where: str) -> RewardError:
    """A transport's error as one of ours.

    Args:
        url: what was asked for.
        where: names the proxy, if there is one; ends in a comma.
    """
    reason, kind = _reason(error)
    reason = one_line(reason)
    if kind is RewardError:
        return RewardError(f"{url} did not answer: {where}{reason}")
    return kind(f"did not answer: {where}{reason}")


def _reason(error: httpx.HTTPError) -> tuple[str, type[RewardError]]:
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refused ({error})", RewardError
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}); SSL_CERT_FILE may name yours", RewardError
        if isinstance(cause, ssl.SSLEOFError):
            return "the connection was closed while TLS began", UnreachableError
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason}); a service without TLS is written http://", RewardError
        if isinstance(cause, socket.gaierror):
            return f"the host is not known ({cause.strerror})", UnreachableError
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower(), UnreachableError
    if isinstance(error, httpx.RemoteProtocolError) and not _was_closed(error):
        return f"what came is no HTTP ({error})", RewardError
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return str(error), RewardError
    return "the connection was closed before the answer was complete", UnreachableError


def _was_closed(error: httpx.RemoteProtocolError) -> bool:
    """The transport has no class of its own for it, only words."""
    return "disconnected" in str(error) or "closed" in str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it came from, and so on; of several attempts to connect, each."""
    link: BaseException | None = error
    while link is not None:
        yield from link.exceptions if isinstance(link, BaseExceptionGroup) else (link,)
        link = link.__cause__ or link.__context__
