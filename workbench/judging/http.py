"""One JSON request over HTTP, without redirects; messages about failures never contain the key."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

LARGEST_REPLY = 4 * 2**20


class Failure(Exception):
    """A request without a usable reply. `status` is None where the server was not reached or did not answer."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow no redirect: the key must only go to the configured address."""


def post(url: str, body: Any, *, key: str | None, timeout_s: float) -> Any:
    """Send a JSON body and return the JSON reply, within `timeout_s` from start to last byte.

    Raises Failure where the server cannot be reached, or answers with an error or without JSON.
    """
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    if key is not None:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(_NoRedirect())
    deadline = time.monotonic() + timeout_s
    try:
        with opener.open(request, timeout=timeout_s) as response:
            data = _read(response, deadline)
    except urllib.error.HTTPError as error:
        with error:
            retry_after = _seconds(error.headers.get("Retry-After"))
            detail = _detail(error, deadline, key)
        raise Failure(f"the server answered {error.code}{detail}", status=error.code, retry_after=retry_after) from None
    except TimeoutError:
        raise Failure(f"no answer within {timeout_s:g} s") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise Failure(f"no answer within {timeout_s:g} s") from None
        raise Failure(f"the server cannot be reached ({_kind(error.reason)})") from None
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"the connection was lost ({_kind(error)})") from None
    try:
        return json.loads(data)
    except ValueError:
        raise Failure("the server's reply is not JSON", status=200) from None


def _read(response: Any, deadline: float) -> bytes:
    parts, size = [], 0
    while piece := response.read1(65536):
        parts.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > LARGEST_REPLY:
            raise Failure(f"the server's reply is longer than {LARGEST_REPLY >> 20} MiB", status=200)
    return b"".join(parts)


def _detail(error: urllib.error.HTTPError, deadline: float, key: str | None) -> str:
    """Return the server's error message, shortened, without the key."""
    try:
        said = json.loads(_read(error, deadline))["error"]
        text = str(said["message"] if isinstance(said, dict) else said)
    except Exception:
        return ""
    text = " ".join(text.split())[:120]
    return f": {text.replace(key, '[key]') if key else text}" if text else ""


def _kind(error: object) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _seconds(header: str | None) -> float | None:
    """Return a Retry-After header, seconds or a date, as seconds from now."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
