"""Which server a command talks to: a named one, the process that serves the root, or its own.

A process that serves a root holds a lock there and writes down where it listens. Who finds the lock
held talks to that process; who finds it free becomes it, as long as the command lasts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from controller_svc.adaptations import FOLDER
from controller_svc.cli.roots import existing_store, shown
from controller_svc.cli.server_thread import ServerThread
from controller_svc.cli.target import Target
from controller_svc.cli.typed import as_typed
from controller_svc.local.lock import Locked, check_free
from seal.artifacts import ArtifactStore
from seal.client import Client
from seal.client.calls import OnRetry
from seal.errors import Conflict, Exhausted, NotFound, Retryable
from seal.records import Record
from seal.settings import EngineSettings

SERVING_FILE = f"{FOLDER}/serving.json"
"""Where the process that serves a root says how it is reached."""
LOOK_SECONDS = 1.0
"""How long a command that only looks asks a server that is away, beyond the channel's own tries."""
AWAY_SECONDS = 30.0
"""Between two lines that say that a server is away or full."""
START_SECONDS = 120.0
"""How long another process may take from its lock to its address: it loads a model."""

Result = TypeVar("Result")
OnDownload = Callable[[str, int, int], None]


class Serving(Record):
    """The process that serves a root."""

    address: str
    model: str
    pid: int
    """Of the process; what a killed one has left is not looked at."""

    @property
    def lives(self) -> bool:
        """Whether there is such a process."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            return True
        return True


class ServerGone(Exception):
    """Who serves the root has changed: look again, another process does or this one can."""


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """How this process serves, if it has to."""

    model: str
    engine: EngineSettings
    offline: bool
    address: str = ""
    """Empty for a socket that only this machine's commands find."""


@dataclass(frozen=True)
class View:
    """Whom a command asks that only looks."""

    client: Client
    at_work: bool
    """Somebody works at what has not ended."""


def look(
    target: Target, work: Callable[[View], Result], *, on_retry: OnRetry | None = None
) -> Result:
    """Do something with a client of whoever knows the adaptations; no model is loaded for it.

    `work` is done again from its beginning if the process that was asked ends meanwhile. Raises
    NotFound if there are no adaptations in the root, and what `work` raises.
    """
    while True:
        try:
            with as_typed(), _looking(target, on_retry) as view:
                return work(view)
        except ServerGone:
            continue


@contextmanager
def _looking(target: Target, on_retry: OnRetry | None) -> Iterator[View]:
    if target.server:
        with target.client(target.server, on_retry, retry_seconds=LOOK_SECONDS) as client:
            yield View(client, at_work=True)
        return
    store = existing_store(target.root)
    if (serving := serving_now(store)) is not None:
        with target.client(
            serving.address, _unless_gone(store, on_retry), retry_seconds=LOOK_SECONDS
        ) as client:
            yield View(client, at_work=True)
        return
    if not has_adaptations(store):
        raise NotFound(
            f"there are no adaptations in {shown(store.root_uri)}",
            field="--root",
            remedy="--root names where they are kept, --server or SEAL_SERVER a server",
        )
    with (
        ServerThread(partial(_records_alone, store)) as server,
        target.client(server.address) as client,
    ):
        yield View(client, at_work=False)


@dataclass(frozen=True)
class Worker:
    """A server that works at adaptations."""

    client: Client
    is_here: bool
    """It is this process: with it ends the work."""


@contextmanager
def working(
    target: Target,
    local: LocalServer,
    *,
    say: Callable[[str], None],
    on_download: OnDownload,
) -> Iterator[Worker]:
    """A server that works at adaptations: without a named one this process becomes it.

    Raises ServerGone if another process begins to serve meanwhile, and from any call, once one that
    was found has ended: who looks again finds who serves now.
    """
    on_retry = saying_away(say)
    if target.server:
        with target.client(target.server, on_retry) as client:
            yield Worker(client, is_here=False)
        return
    store = ArtifactStore(target.root)
    if (serving := serving_now(store)) is not None:
        _same_model(serving, local.model)
        say("another process serves this root: it does the work")
        with target.client(serving.address, _unless_gone(store, on_retry)) as client:
            yield Worker(client, is_here=False)
        return
    with ExitStack() as stack:
        try:
            server = stack.enter_context(serve_here(store, local, on_download=on_download))
        except Locked as taken:
            # Another process was a moment faster. It is found now, or has ended meanwhile
            serving_now(store)
            raise ServerGone from taken

        def unless_broken(error: Retryable) -> None:
            server.check()
            on_retry(error)

        client = stack.enter_context(target.client(server.address, unless_broken))
        yield Worker(client, is_here=True)


def saying_away(
    say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
) -> OnRetry:
    """Says now and then, while a server is asked again and again, that it is away or full."""
    said_at = float("-inf")

    def on_retry(error: Retryable) -> None:
        nonlocal said_at
        if clock() - said_at >= AWAY_SECONDS:
            said_at = clock()
            what = "is full" if isinstance(error, Exhausted) else "cannot be reached"
            say(f"the server {what} ({error.message}); trying again")

    return on_retry


@contextmanager
def serve_here(
    store: ArtifactStore, local: LocalServer, *, on_download: OnDownload
) -> Iterator[ServerThread]:
    """Serve a root in this process until the end of the block, and let other commands find it.

    Raises what `controller_svc.api.serve.serve` raises.
    """
    with (
        tempfile.TemporaryDirectory(prefix="seal-") as directory,
        ServerThread(
            partial(
                _announced,
                store,
                local,
                address=local.address or f"unix:{directory}/front.sock",
                on_download=on_download,
            )
        ) as server,
    ):
        yield server


def serving_now(store: ArtifactStore) -> Serving | None:
    """The process of this machine that serves a root; None if there is none.

    Raises Conflict if there is one that does not say how it is reached.
    """
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            check_free(store, FOLDER)
            return None
        except Conflict as held:
            with suppress(NotFound):
                if (serving := store.read_json(SERVING_FILE, Serving)).lives:
                    return serving
            if time.monotonic() > until:
                raise Conflict(
                    f"{store.root_uri} is being served: {held.message}",
                    remedy="stop that process, or name its address with --server",
                ) from held
        time.sleep(0.2)


def has_adaptations(store: ArtifactStore) -> bool:
    """Whether a root has ever been used for adaptations."""
    return bool(store.list(FOLDER))


def _same_model(serving: Serving, model: str) -> None:
    if serving.model != model:
        raise Conflict(
            f"another process serves this root, with the model {serving.model}",
            field="--model",
            remedy=f"use --model {serving.model}, wait for its end, or use another --root",
        )


def _unless_gone(store: ArtifactStore, on_retry: OnRetry | None) -> OnRetry:
    """Ask the process that was found again only while it lives."""

    def check(error: Retryable) -> None:
        try:
            check_free(store, FOLDER)
        except Conflict:
            if on_retry is not None:
                on_retry(error)
            return
        raise ServerGone

    return check


@asynccontextmanager
async def _announced(
    store: ArtifactStore, local: LocalServer, *, address: str, on_download: OnDownload
) -> AsyncIterator[str]:
    """Serve, and write down where."""
    async with _everything(store, local, address=address, on_download=on_download) as bound:
        serving = Serving(address=bound, model=local.model, pid=os.getpid())
        store.write_json(SERVING_FILE, serving)
        try:
            yield bound
        finally:
            store.remove(SERVING_FILE)


def _everything(
    store: ArtifactStore, local: LocalServer, *, address: str, on_download: OnDownload
) -> AbstractAsyncContextManager[str]:
    """Model and services in this process."""
    from controller_svc.api.serve import serve  # loads torch

    return serve(
        local.model,
        root=store.root_uri,
        engine=local.engine,
        address=address,
        offline=local.offline,
        on_download=on_download,
    )


@asynccontextmanager
async def _records_alone(store: ArtifactStore) -> AsyncIterator[str]:
    """The service over what lies in a root, with nothing that could work at it."""
    from controller_svc.api.service import register
    from controller_svc.local.adaptations import AdaptationSettings, local_adaptations
    from controller_svc.worker.settings import ServiceAddresses
    from seal.rpc.server import start_server

    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        async with local_adaptations(
            store,
            model="",
            services=ServiceAddresses.all_at(f"unix:{directory}/none.sock"),
            settings=AdaptationSettings(max_running=0),
        ) as adaptations:
            server = await start_server(
                [partial(register, adaptations=adaptations, store=store)],
                address=f"unix:{directory}/front.sock",
            )
            try:
                yield server.address
            finally:
                await server.stop(0)
