"""Which proxy a request goes through: none to this machine and private networks, or it would see tokens and images."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment

from blip3o_grpo.rewards.types import RewardError

PROXIES = ("public", "always", "never")
PRIVATE_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


async def find_proxy(url: str, when: str, timeout_s: float) -> str | None:
    """URL of the proxy for `url`, of the environment's variables; None: straight.

    Args:
        when: one of `PROXIES`.
        timeout_s: for the name server, where the host is a name.

    Raises:
        RewardError: a kind of proxy that is not known.
    """
    parts = urlsplit(url)
    named = getproxies_environment()
    proxy = named.get(parts.scheme) or named.get("all")
    host = parts.hostname or ""
    if when == "never" or not proxy or proxy_bypass_environment(parts.netloc, named):
        return None
    if when == "public" and await _is_private(host, timeout_s):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.lower().startswith(("http://", "https://")):
        raise RewardError(
            f"remote: the environment's proxy is {without_user(proxy)!r}; only http:// and https:// proxies are "
            "known (proxy: never goes without)"
        )
    return proxy


def without_user(url: str) -> str:
    """The URL without user, password and query, which may hold secrets."""
    scheme, separator, rest = url.rpartition("://")
    rest, query, _ = rest.rpartition("@")[2].partition("?")
    return f"{scheme}{separator}{rest}{'?...' if query else ''}"


async def _is_private(host: str, timeout_s: float) -> bool:
    """Whether a host is this machine or in a private network: by its address, its name, or its name's addresses."""
    host = host.rstrip(".").lower()
    if ":" not in host and ("." not in host or host.endswith(PRIVATE_ENDINGS)):
        return True  # `localhost`, `gpu-node-3`: a name without a dot is looked up in the local network
    try:
        async with asyncio.timeout(timeout_s):  # numbers are answered without a name server
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return False  # behind a proxy, public names often cannot be looked up
    return all(_is_private_address(address[4][0]) for address in found)


def _is_private_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    return not (getattr(address, "ipv4_mapped", None) or address).is_global
