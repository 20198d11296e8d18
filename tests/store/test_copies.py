"""Copies of an object store's directories: whole while in use, bounded, for all processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from seal.artifacts import ArtifactStore
from seal.embedded import EMBEDDED_MODELS, ensure_embedded
from seal.errors import Exhausted, PreconditionFailed
from seal.files import cache_directory
from seal.manifest import FileEntry, Manifest
from seal.object_storage import ObjectStorage
from seal.records import AdapterReference

DIRECTORY_BYTES = 1 + len(
    Manifest(files={"adapter_config.json": FileEntry(sha256="0" * 64, bytes=1)}).to_bytes()
)
"""Of one of `publish_some`, with its manifest."""
CAPACITY = 2


def publish_some(storage: ObjectStorage, adapter: Path, number: int) -> list[str]:
    """Digests of directories that differ."""
    digests = []
    for index in range(number):
        (adapter / "adapter_config.json").write_text(str(index))
        digests.append(storage.publish(adapter, ("adapter_config.json",), "a"))
    return digests


def small_cache(root_uri: str, tmp_path: Path) -> ObjectStorage:
    scheme, _, root = root_uri.partition("://")
    capacity_bytes = CAPACITY * DIRECTORY_BYTES
    return ObjectStorage(scheme, root, cache=tmp_path / "cache", cached_bytes=capacity_bytes)


def copies(tmp_path: Path) -> list[Path]:
    return [entry for entry in (tmp_path / "cache").iterdir() if len(entry.name) == 64]


def read_many(root_uri: str, tmp_path: Path, digests: list[str], seed: int) -> int:
    """Fetch in any order and read, with a breath between: what a slow reader does."""
    storage, order, read = small_cache(root_uri, tmp_path), random.Random(seed), 0
    for _ in range(30):
        index = order.randrange(len(digests))
        with storage.fetch(f"a/{digests[index]}", digests[index]) as directory:
            time.sleep(0.001)
            assert (directory / "adapter_config.json").read_text() == str(index)
            assert (directory / "manifest.json").exists()
            read += 1
    return read


@pytest.mark.parametrize("root_uri", ["memory", "s3"], indirect=True)
def test_many_threads_at_the_capacity_of_the_cache_find_every_file(
    root_uri: str, adapter: Path, tmp_path: Path
) -> None:
    digests = publish_some(small_cache(root_uri, tmp_path), adapter, 6)
    with ThreadPoolExecutor(8) as pool:
        reads = pool.map(lambda seed: read_many(root_uri, tmp_path, digests, seed), range(8))
        assert sum(reads) == 240
    assert len(copies(tmp_path)) <= CAPACITY + 8


@pytest.mark.parametrize("root_uri", ["s3"], indirect=True)
def test_many_processes_at_the_capacity_of_the_cache_find_every_file(
    root_uri: str, adapter: Path, tmp_path: Path
) -> None:
    digests = publish_some(small_cache(root_uri, tmp_path), adapter, 6)
    arguments = [(root_uri, tmp_path, digests, seed) for seed in range(3)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert sum(pool.starmap(read_many, arguments)) == 90


@pytest.mark.parametrize("root_uri", ["memory"], indirect=True)
def test_the_least_recently_used_copies_leave_and_one_in_use_stays(
    root_uri: str, adapter: Path, tmp_path: Path
) -> None:
    storage = small_cache(root_uri, tmp_path)
    digests = publish_some(storage, adapter, 5)
    with storage.fetch(f"a/{digests[0]}", digests[0]) as held:
        for index, digest in enumerate(digests[1:], start=1):
            with storage.fetch(f"a/{digest}", digest) as directory:
                os.utime(directory, (index, index))
            os.utime(held, (0, 0))
        assert (held / "adapter_config.json").read_text() == "0"
    assert {entry.name for entry in copies(tmp_path)} == {digests[3], digests[4]}
    assert not list((tmp_path / "cache").glob(".tmp-*"))


@pytest.mark.parametrize("root_uri", ["memory"], indirect=True)
def test_a_large_copy_takes_the_room_of_many_small_ones(
    root_uri: str, adapter: Path, tmp_path: Path
) -> None:
    storage = small_cache(root_uri, tmp_path)
    small = publish_some(storage, adapter, 2)
    (adapter / "adapter_config.json").write_text("1" * (DIRECTORY_BYTES - 10))
    large = storage.publish(adapter, ("adapter_config.json",), "a")
    (adapter / "adapter_config.json").write_text("1" * (DIRECTORY_BYTES * CAPACITY))
    too_large = storage.publish(adapter, ("adapter_config.json",), "a")
    for digests, left in ((small, set(small)), ([large], {large}), ([too_large], set())):
        for digest in digests:
            with storage.fetch(f"a/{digest}", digest) as directory:
                assert (directory / "adapter_config.json").exists()
        assert {entry.name for entry in copies(tmp_path)} == left


@pytest.mark.parametrize("root_uri", ["memory"], indirect=True)
def test_what_a_killed_download_left_is_removed_when_it_is_old(
    root_uri: str, adapter: Path, tmp_path: Path
) -> None:
    for name, age_seconds in (("old", 7200.0), ("young", 10.0)):
        left = tmp_path / "cache" / f".tmp-{name}"
        left.mkdir(parents=True)
        os.utime(left, (time.time() - age_seconds,) * 2)
    storage = small_cache(root_uri, tmp_path)
    (digest,) = publish_some(storage, adapter, 1)
    with storage.fetch(f"a/{digest}", digest):
        pass
    assert [entry.name for entry in (tmp_path / "cache").glob(".tmp-*")] == [".tmp-young"]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the file systems read-only, as a pod's root is."""

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    return lambda: monkeypatch.setattr(Path, "mkdir", refuse)


def test_a_cache_that_cannot_be_written_names_its_variable(
    adapter: Path, tmp_path: Path, read_only: Callable[[], None]
) -> None:
    store = ArtifactStore("memory://read-only/seal", cache_dir=tmp_path / "cache")
    reference = store.publish_directory(adapter, "a")

    read_only()
    with (
        pytest.raises(PreconditionFailed, match="cache/adapters") as caught,
        store.fetch_directory(reference),
    ):
        pass
    assert "set SEAL_CACHE" in caught.value.remedy


def test_a_model_cache_that_cannot_be_written_names_its_variable(
    tmp_path: Path, read_only: Callable[[], None]
) -> None:
    read_only()
    with pytest.raises(PreconditionFailed, match="no permission") as caught:
        ensure_embedded(
            EMBEDDED_MODELS["smollm2-135m"],
            models=tmp_path / "cache",
            downloads=tmp_path / "downloads",
            offline=False,
            force=False,
            remedy="",
            progress=lambda *_: None,
        )
    assert "set SEAL_CACHE" in caught.value.remedy


@pytest.mark.parametrize("root_uri", ["memory", "s3"], indirect=True)
def test_a_full_disk_of_the_cache_is_exhausted_and_leaves_nothing(
    root_uri: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(root_uri, cache_dir=tmp_path / "cache")
    reference = store.publish_directory(adapter, "a")

    def full(source: str, target: str, **options: object) -> None:
        Path(target).write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(
        fsspec.filesystem(root_uri.partition(":")[0], use_listings_cache=False), "get_file", full
    )
    with pytest.raises(Exhausted, match="no space left"), store.fetch_directory(reference):
        pass
    assert not list((tmp_path / "cache" / "adapters").iterdir())


def test_without_a_home_the_variable_is_named_and_with_it_no_home_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without an entry
    for name in ("HOME", "XDG_CACHE_HOME", "SEAL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for chosen in (None, "~/cache"):
        if chosen:
            monkeypatch.setenv("SEAL_CACHE", chosen)
        with pytest.raises(PreconditionFailed, match="no home") as caught:
            cache_directory()
        assert "set SEAL_CACHE" in caught.value.remedy
    monkeypatch.setenv("SEAL_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path


def test_a_removed_directory_is_gone_and_removing_it_again_changes_nothing(
    store: ArtifactStore, adapter: Path
) -> None:
    first = store.publish_directory(adapter, "run/adapters")
    (adapter / "adapter_config.json").write_text("{}")
    second = store.publish_directory(adapter, "run/adapters")
    size = store.bytes_under(second.path)
    assert size == sum(len(store.read_bytes(path)) for path in store.list(second.path))
    assert store.bytes_under("run") > size
    store.remove_directory(first)
    store.remove_directory(first)
    assert store.list("run") == store.list(second.path)
    assert store.bytes_under("run") == size
    assert store.bytes_under("absent") == 0
    with store.fetch_directory(second):
        pass
    assert store.publish_directory(adapter, "run/adapters") == second


def test_an_interrupted_removal_leaves_nothing_to_read_and_is_finished_by_the_next(
    store: ArtifactStore, adapter: Path
) -> None:
    reference = store.publish_directory(adapter, "run/adapters")
    store.remove(f"{reference.path}/manifest.json")
    store.remove_directory(reference)
    assert store.list() == ()


def test_only_the_address_of_a_directory_is_removed(store: ArtifactStore, adapter: Path) -> None:
    reference = store.publish_directory(adapter, "run/adapters")
    for path in ("run", "run/adapters", f"../{reference.sha256}"):
        with pytest.raises(ValueError, match=r"not the address|empty, \. or \.\."):
            store.remove_directory(AdapterReference(path=path, sha256=reference.sha256))
    assert store.exists(f"{reference.path}/manifest.json")
