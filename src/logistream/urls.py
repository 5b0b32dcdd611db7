"""Addresses: what a user may type as one, and what belongs to it."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from logistream.errors import RequestError

__all__ = ["http_url", "is_address", "is_local", "is_loopback", "query_of", "websocket_url", "with_query"]


def websocket_url(url: str) -> str:
    """Return the address of the event socket for what a user may type.

    `localhost:8000`, `http://localhost:8000` and `ws://localhost:8000` all mean `ws://localhost:8000/ws`; a
    path and a query are kept. Raises `RequestError` for what cannot be an address.
    """
    shown = url if "://" in url else f"ws://{url}"
    try:
        parts = urlsplit(shown)
        valid = bool(parts.hostname) and parts.port != 0  # reading a port out of range raises
    except ValueError:
        valid = False
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme) if valid else None
    if scheme is None:
        raise RequestError(
            f"cannot connect to {url!r}: expected an address such as ws://127.0.0.1:8000/ws "
            f"or http://127.0.0.1:8000"
        )
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path.strip("/") else "/ws", parts.query, ""))


def http_url(url: str, name: str) -> str:
    """Return the HTTP address of `name` beside an event socket, without a query."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rpartition('/')[0]}/{name}", "", ""))


def query_of(url: str) -> list[tuple[str, str]]:
    """Return the names and values of a query, in order."""
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def with_query(url: str, query: list[tuple[str, str]]) -> str:
    """Return an address with its query replaced."""
    return urlunsplit(urlsplit(url)._replace(query=urlencode(query, quote_via=quote)))


def is_local(url: str) -> bool:
    """Return whether an address, as `websocket_url` gives it, is one of this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only mean the machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return is_address(host) and ip_address(host).is_loopback


def is_address(host: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
