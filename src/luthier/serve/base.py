"""`serve`: a release answers over HTTP, in OpenAI's API and on a chat page."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from luthier.errors import ServeError, need
from luthier.serve.engines.base import ENGINES, EngineSpec
from luthier.serve.engines.transformers import Transformers
from luthier.serve.labels.base import LabelServe
from luthier.spec import Spec

if TYPE_CHECKING:
    from fastapi import FastAPI

    from luthier.serve.follow import Following

LOOPBACK = ("127.0.0.1", "::1", "localhost")
STATE = ".luthier"


class Serve(Spec):
    """The server: an OpenAI-compatible API and a chat page over a release."""

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only; `0.0.0.0` listens on every network, which
    wants a reverse proxy with TLS in front: the server itself speaks plain HTTP."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and prints it."""
    api_key_env: str = "LUTHIER_API_KEY"
    """Environment variable that holds the API key. When it is not set, the key in `.luthier/serve.key` counts, which
    is made at the first start and printed once."""
    no_key: bool = False
    """Serve without a key; possible on a loopback host only."""
    cors_origins: tuple[str, ...] = ()
    """Web origins, such as https://intranet.example, whose pages may call the API from a browser; none by default."""
    systems: tuple[Literal["base", "retrieval", "tuned", "tuned_retrieval"], ...] | None = None
    """Systems of an assistant offered as models; null offers all that the release holds. Leaving out base and
    retrieval, or the tuned ones, saves the memory of those weights."""
    chat_page: bool = True
    """Show the chat page, or the page of a release with labels, at `/`."""
    engine: Annotated[EngineSpec, ENGINES] = Transformers()
    """What computes the answers."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Randomness of answers to requests that name none; 0 is greedy, which is how the release was evaluated."""
    max_prompt_tokens: int | None = Field(default=4096, ge=1)
    """Longest prompt, passages and template included, in tokens; null leaves it to the model."""
    max_output_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens, and the length of answers to requests that name none."""
    max_queue: int = Field(default=32, ge=0)
    """Requests that may wait while the engine is full; further ones get status 429 with Retry-After."""
    request_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one answer, waiting included, after which it fails with status 504."""
    max_body_bytes: int = Field(default=1_000_000, ge=1_000)
    """Largest request body in bytes; larger ones get status 413."""
    max_embedding_inputs: int = Field(default=256, ge=1)
    """Texts in one embeddings request."""
    shutdown_timeout_s: int = Field(default=30, ge=0)
    """Seconds that running requests get to finish after SIGTERM or Ctrl-C."""
    follow_s: float | None = Field(default=5.0, gt=0)
    """Seconds between looks whether another release went live, by an update or a rollback. It is loaded beside the one
    that runs and takes over between two requests; both are in memory until the old one's last answer is done. null
    stays with the release of the start, as `--release` does."""
    answer_log: int = Field(default=10_000, ge=0)
    """Answers kept in `.luthier/answers.jsonl` for `luthier trace answer:ID` (id, release, passages, tokens, times;
    never the answer's text): at least this many, at most twice; 0 keeps no log."""
    log_questions: Literal["hash", "text", "none"] = "hash"
    """What the answer log holds of the question: its sha256, its text, or nothing."""
    labels: LabelServe = LabelServe()
    """Releases of the tasks classify, tag, embed and image. Of the fields above they do not read systems, engine,
    temperature, max_prompt_tokens, max_output_tokens and max_embedding_inputs, which are for assistants."""

    @model_validator(mode="after")
    def _consistent(self) -> Serve:
        if self.no_key and self.host not in LOOPBACK:
            raise ValueError(f"no_key is possible on a loopback host only (host is {self.host}); anybody on the "
                             "network could ask the model about your documents")
        if self.systems is not None and not self.systems:
            raise ValueError("systems is an empty list, so nothing would be served; write null for all")
        return self


def create_app(release: Path, spec: Serve | None = None, *, root: Path | None = None, follow: bool = False
               ) -> FastAPI | Following:
    """The ASGI application. The models load in the background once it starts; until then requests get status 503.

    `root` is the project folder: relative model paths start there and `.luthier/` holds key and answer log. `follow`:
    change over when another release of that name goes live (`serve.follow_s`).
    """
    need("fastapi", extra="serve")
    root = root or Path.cwd()
    spec = spec or Serve()
    key = None if spec.no_key else _key(spec, root)[0]
    first = _app(release, spec, root, key)
    if not follow or spec.follow_s is None:
        return first
    from luthier.serve.follow import Following

    return Following(first, open_app=lambda folder: _app(folder, spec, root, key), every_s=spec.follow_s)


def _app(release: Path, spec: Serve, root: Path, key: str | None) -> FastAPI:
    from luthier.release.folder import read_release
    from luthier.serve.http import build
    from luthier.serve.service import Service

    record = read_release(release)
    if record.labels is not None:
        from luthier.serve.labels.http import build_labels
        from luthier.serve.labels.service import LabelService

        return build_labels(LabelService(record, spec, state=root / STATE), key=key)
    return build(Service(record, spec, root=root, state=root / STATE), key=key)


def serve(release: Path, spec: Serve | None = None, *, root: Path | None = None, follow: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests are finished first. `follow` as in `create_app`.

    ServeError for a port that is taken or a host that is not ours, ModelError when the release's models cannot be
    loaded, UsageError for a folder that is no release.
    """
    uvicorn = need("uvicorn", extra="serve")
    root = root or Path.cwd()
    spec = spec or Serve()
    with contextlib.closing(listen(spec.host, spec.port)) as listener:
        key, fresh = (None, False) if spec.no_key else _key(spec, root)
        app = create_app(release, spec, root=root, follow=follow)
        server = uvicorn.Server(uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="on", ws="none",
            timeout_graceful_shutdown=spec.shutdown_timeout_s, timeout_keep_alive=15,
        ))
        app.state.service.on_failure = lambda: setattr(server, "should_exit", True)
        _greet(listener, spec, root, app.state.service, key if fresh else None, follow=follow)
        with quiet_signals():
            server.run(sockets=[listener])
    if app.state.service.failure is not None:
        raise app.state.service.failure


def _key(spec: Serve, root: Path) -> tuple[str, bool]:
    from luthier.serve.guard import find_key

    return find_key(root / STATE, spec.api_key_env)


def listen(host: str, port: int, section: str = "serve") -> socket.socket:
    """A socket that listens; ServeError, naming the section of the project file, where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                 flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServeError(f"cannot listen on host '{host}': {error.strerror or error}; check {section}.host") from None
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ServeError(f"port {port} on {host} is taken by another program; choose another with --port or "
                             f"{section}.port (0 takes a free one)") from None
        raise ServeError(f"cannot listen on {host}, port {port}: {error.strerror or error}; check {section}.host and "
                         f"{section}.port") from None
    return listener


def _greet(listener: socket.socket, spec: Serve, root: Path, service, key: str | None, *, follow: bool) -> None:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    lines = [f"Serving {service.record.label} at {url}  (API: {url}/v1, "
             f"models: {', '.join(service.models)})"]
    if spec.no_key:
        lines.append("No API key is asked for (serve.no_key).")
    elif os.environ.get(spec.api_key_env, "").strip():
        lines.append(f"API key: the one in the environment variable {spec.api_key_env}.")
    elif key is None:
        lines.append(f"API key: in {root / STATE / 'serve.key'}.")
    elif sys.stderr.isatty():
        lines += [f"API key (shown once; kept in {root / STATE / 'serve.key'}): {key}",
                  f"Open the page with it: {url}/#key={key}" if spec.chat_page else ""]
    else:
        lines.append(f"API key: made now and kept in {root / STATE / 'serve.key'} "
                     "(not printed, because stderr is no terminal).")
    if follow and spec.follow_s is not None:
        lines.append("When another release goes live, it takes over here without a restart (serve.follow_s).")
    if spec.host not in LOOPBACK:
        lines.append("This server is reachable from the network in plain HTTP; put a reverse proxy with TLS in front.")
    print("\n".join(line for line in lines if line), file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_signals() -> Iterator[None]:
    """uvicorn raises the signal that stopped it again after its clean shutdown; that one shall not kill us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
