"""The page behind proxies that take TLS off or rename the host and do not say so."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

_SAID = (b"x-forwarded-host", b"x-forwarded-proto", b"forwarded")


class OwnOrigin:
    """ASGI middleware: where a request comes from this page itself, addresses in the answer begin as the page's does.

    Gradio makes whole addresses of videos from the host that a request names. Behind a proxy that takes TLS off and
    does not tell, these begin with http:// and a secure page may not load them. The browser knows better: its Origin
    (or Referer) is the page's, and Sec-Fetch-Site says that page and server are the same site as far as it sees.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": told(scope["headers"])}
        await self._app(scope, receive, send)


def told(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a request, with host and scheme as the browser sees them where no proxy said so."""
    found = dict(headers)
    if found.get(b"sec-fetch-site") != b"same-origin" or any(name in found for name in _SAID):
        return headers
    page = urlsplit((found.get(b"origin") or found.get(b"referer") or b"").decode("latin-1"))
    if page.scheme not in ("http", "https") or not page.netloc:
        return headers
    seen = (b"x-forwarded-host", page.netloc.encode("latin-1")), (b"x-forwarded-proto", page.scheme.encode())
    return [*headers, *seen]
