"""The door: key, host, body size and security headers, before any route sees a request. Plain ASGI."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from pathlib import Path
from typing import Any

from luthier.errors import ServeError
from luthier.serve.errors import ApiError, too_large, unauthorized

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

KEY_FILE = "serve.key"
RELEASE_HEADER = "X-Luthier-Release"
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def find_key(state: Path, env: str, name: str = KEY_FILE) -> tuple[str, bool]:
    """The API key, and whether it was generated now.

    The environment variable `env` wins; else the key file `name` in the project's state folder, generated at the first
    start, readable by its owner alone.
    """
    told = os.environ.get(env, "").strip()
    if told:
        return told, False
    file = state / name
    try:
        state.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = file.read_text("utf-8").strip()
            if len(key) < 16:
                raise ServeError(f"the key file {file} is empty or damaged; delete it and start again to get a new "
                                 "key") from None
            if file.stat().st_mode & 0o077:
                raise ServeError(f"the key file {file} can be read by others; run: chmod 600 {file} (or set {env})"
                                 ) from None
            return key, False
        key = "lut-" + secrets.token_urlsafe(32)
        with os.fdopen(handle, "w") as open_file:
            open_file.write(key + "\n")
        return key, True
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"the key file {file} cannot be used ({error}); set the environment variable {env} "
                         "instead") from None


class Guard:
    """Wraps the application; `key` None lets everybody in, then only the names in `hosts` are answered."""

    def __init__(self, app: Any, *, key: str | None, open_paths: Collection[str], max_body_bytes: int,
                 hosts: Collection[str] | None):
        """`hosts`: allowed names in the Host header (None: any). Without a key they keep out web pages that reach
        for the loopback under a name of their own (DNS rebinding)."""
        self.app, self.max_body_bytes, self.hosts = app, max_body_bytes, hosts
        self.open_paths = open_paths
        self._key = _digest(key.encode()) if key is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(
                    (name.lower().encode(), value.encode()) for name, value in HEADERS.items()
                    if name.lower().encode() not in present)]
            await send(message)

        problem = self._refuse(scope["path"], headers)
        if problem is not None:
            await _reply(send_guarded, problem)
            return
        read = 0

        async def receive_bounded() -> MutableMapping[str, Any]:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self.max_body_bytes:
                    raise too_large(self.max_body_bytes)
            return message

        await self.app(scope, receive_bounded, send_guarded)

    def _refuse(self, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        if self.hosts is not None and _host(headers.get(b"host", b"").decode("latin-1")) not in self.hosts:
            return ApiError(403, "This server does not answer to that host name.", code="unknown_host")
        if self._key is not None and path not in self.open_paths:
            scheme, _, told = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(_digest(told.strip()), self._key):
                return unauthorized()
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body_bytes:
            return too_large(self.max_body_bytes)
        return None


class Stamp:
    """Names the release in a header of every answer under /v1/. Behind the guard: strangers learn no versions."""

    def __init__(self, app: Any, *, label: str):
        self.app, self.header = app, (RELEASE_HEADER.lower().encode(), label.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_stamped(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self.header]
            await send(message)

        stamped = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await self.app(scope, receive, send_stamped if stamped else send)


def _digest(key: bytes) -> bytes:
    """Equal lengths, so that the comparison tells nothing by its time, not even the key's length."""
    return hashlib.sha256(key).digest()


def _host(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


async def _reply(send: Send, problem: ApiError) -> None:
    body = json.dumps(problem.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close",
               **problem.headers}
    await send({"type": "http.response.start", "status": problem.status,
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": body})
