"""HTTP as conda uses it: a connection kept for each thread, connecting tried again, bodies streamed."""

from __future__ import annotations

import http.client
import threading
import urllib.parse

from .errors import CondaHTTPError

RETRIES = 3
_local = threading.local()


def get(url, headers=None):
    """Returns a response that is open, with any status below 400; others raise CondaHTTPError."""
    parts = urllib.parse.urlsplit(url)
    connections = _local.__dict__.setdefault("connections", {})
    for attempt in range(RETRIES + 1):
        conn = connections.pop(parts.netloc, None) or http.client.HTTPConnection(parts.netloc, timeout=60)
        try:
            conn.request("GET", parts.path, headers={"User-Agent": "conda-shaped", **(headers or {})})
            resp = conn.getresponse()
            break
        except (ConnectionError, http.client.HTTPException):
            conn.close()
            if attempt == RETRIES:
                raise
    if resp.status >= 400:
        resp.read()
        connections[parts.netloc] = conn
        raise CondaHTTPError(url, resp.status)
    resp.done = lambda: connections.__setitem__(parts.netloc, conn)
    return resp
