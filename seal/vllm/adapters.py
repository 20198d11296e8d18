"""Adapters as directories that vLLM loads.

vLLM loads an adapter from a path alone, once, and knows it by name, number and path: its prefix
cache takes keys and values of the same name and path for the same adapter, its workers take the
same number for the same weights. So each adapter gets a name, a number and a path of its own, which
no other ever has, and no adapter is ever loaded over another. The directory stays until no request
needs it: a worker that has pushed an adapter out loads it again.

A process that is killed leaves its adapters, in a tmpfs that may outlive it: each holds a lock on a
file among its own, and removes at its start those whose lock nobody holds.

An adapter on a policy is one LoRA here, both side by side along the rank: a request has one.

On a CPU vLLM has no way to ask without a LoRA: where others are loaded, it gives a text that has
none the one in its last slot (the index -1 of "no LoRA" reads the end of the stack). So there a
text of the base model alone is asked for with an adapter of zeros.
"""

from __future__ import annotations

import fcntl
import itertools
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from safetensors import SafetensorError

from seal.engine import Adapter, concatenate, folded, save_adapter
from seal.errors import Exhausted

log = structlog.get_logger(__name__)

MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs; the directory within is made by mkdtemp
LOCK = "lock"
"""File in a directory of adapters that is locked by whoever uses them."""
RETRY_AFTER_SECONDS = 5.0
_NAMES = "seal-adapters-"


@dataclass(frozen=True)
class PlacedAdapter:
    """One LoRA that vLLM can be asked to use."""

    name: str
    number: int
    """At least 1."""
    path: Path


@dataclass
class _Held:
    placed: PlacedAdapter
    adapters: tuple[Adapter | None, Adapter | None]
    """Kept, so that nothing else gets their identity."""
    uses: int = 0


class AdapterFiles:
    """The adapters in use and some more. Safe to use from any thread."""

    def __init__(
        self, directory: Path, *, kept: int, dtype: str, neutral: Adapter | None = None
    ) -> None:
        """`directory`: where. `kept`: adapters that stay after their last use.

        `dtype`: what vLLM computes in, `bfloat16` or `float32`; it would not use more. `neutral`:
        an adapter that changes nothing, to be used where there is no other.
        """
        parent = directory
        parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(parent)
        made = Path(tempfile.mkdtemp(prefix=f".{_NAMES}", dir=parent))
        self._in_use = (made / LOCK).open("w")
        fcntl.flock(self._in_use, fcntl.LOCK_EX)
        self.directory = made.rename(parent / made.name[1:])  # others see it locked only
        self._kept, self._dtype, self._neutral = kept, dtype, neutral
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, int], _Held] = OrderedDict()

    @contextmanager
    def hold(
        self, policy: Adapter | None, adapter: Adapter | None
    ) -> Iterator[PlacedAdapter | None]:
        """The LoRA of an adapter on a policy, on disk for the length of the block.

        Of neither it is the neutral adapter, or None.

        Raises Exhausted where the directory has no room for it.
        """
        if policy is None and adapter is None:
            adapter = self._neutral
        if policy is None and adapter is None:
            yield None
            return
        key = (id(policy), id(adapter))
        with self._lock:
            held = self._held.get(key) or self._put(key, policy, adapter)
            held.uses += 1
        try:
            yield held.placed
        finally:
            with self._lock:
                held.uses -= 1
                self._held.move_to_end(key)
                self._drop_oldest()

    def needed(self, policy: Adapter | None, adapter: Adapter | None) -> set[tuple[int, int]]:
        """What tells the LoRAs of a request from others: the adapter's, and the policy's alone."""
        loras = {(id(policy), id(None)), (id(policy), id(adapter))}
        return loras if self._neutral is not None else loras - {(id(None), id(None))}

    def close(self) -> None:
        """Remove all."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._in_use.close()

    def _put(self, key: tuple[int, int], policy: Adapter | None, adapter: Adapter | None) -> _Held:
        number = next(self._numbers)
        path = self.directory / f"{number}"
        try:
            save_adapter(folded(merged(policy, adapter), self._dtype), path)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(path, ignore_errors=True)
            raise Exhausted(
                f"{self.directory} has no room for an adapter: {error}",
                remedy="give a larger one: --vllm-adapter-directory",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        placed = PlacedAdapter(f"{self.directory.name}-{number}", number, path)
        self._held[key] = held = _Held(placed, (policy, adapter))
        return held

    def _drop_oldest(self) -> None:
        unused = [key for key, held in self._held.items() if not held.uses]
        for key in unused[: max(0, len(unused) - self._kept)]:
            shutil.rmtree(self._held.pop(key).placed.path, ignore_errors=True)


def place_for(needed_bytes: int) -> Path:
    """Where adapters go unless it is said: to memory if that has room, else to temporary files.

    A container's /dev/shm has 64 MB unless its pod asks for more.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= needed_bytes:
        return MEMORY
    place = Path(tempfile.gettempdir())
    log.info("vllm_adapters_on_disk", directory=str(place), needed_bytes=needed_bytes)
    return place


def _remove_unused(parent: Path) -> None:
    """Remove the directories whose lock nobody holds."""
    for lock in parent.glob(f"{_NAMES}*/{LOCK}"):
        try:
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            continue  # in use, another user's, or gone already


def merged(policy: Adapter | None, adapter: Adapter | None) -> Adapter:
    """One adapter that does what both do."""
    if policy is not None and adapter is not None:
        return concatenate(policy, adapter)
    one = adapter if policy is None else policy
    if one is None:
        raise ValueError("there is no adapter")
    return one


def rank(policy: Adapter | None, adapter: Adapter | None) -> int:
    """Rank of one adapter that does what both do; 0 of neither."""
    return sum(one.rank for one in (policy, adapter) if one is not None)
