"""What is created is never replaced: of many writers one counts, and all see the same."""

from __future__ import annotations

import errno
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import BaseModel

from seal.artifacts import ArtifactStore
from seal.errors import Exhausted, PreconditionFailed
from seal.storage import LocalStorage

WRITERS = 8


class Score(BaseModel):
    """What two writers disagree about."""

    reward: float


def test_the_second_writer_gets_what_the_first_one_wrote(store: ArtifactStore) -> None:
    assert store.create_json("run/a.json", Score(reward=0.1)) == Score(reward=0.1)
    assert store.create_json("run/a.json", Score(reward=0.9)) == Score(reward=0.1)
    assert store.read_json("run/a.json", Score) == Score(reward=0.1)
    assert store.create_bytes("run/b", b"first") == b"first"
    assert store.create_bytes("run/b", b"second") == b"first"
    assert store.list() == ("run/a.json", "run/b")


def test_a_claim_without_content_is_made_once_and_leaves_nothing_beside_it(
    store: ArtifactStore,
) -> None:
    assert store.create_bytes("run/epochs/000001", b"") == b""
    assert store.create_bytes("run/epochs/000001", b"late") == b""
    assert store.create_bytes("run/name", b"content") == b"content"
    assert store.create_bytes("run/name", b"") == b"content"
    assert store.list("run") == ("run/epochs/000001", "run/name")


def test_what_is_deleted_before_it_can_be_read_is_created_after_all(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_bytes("claim", b"another's")
    read = store._storage.read

    def vanishing(path: str) -> bytes:
        monkeypatch.setattr(store._storage, "read", read)
        store.remove(path)
        return read(path)

    monkeypatch.setattr(store._storage, "read", vanishing)
    assert store.create_bytes("claim", b"own") == b"own"
    assert store.read_bytes("claim") == b"own"


def test_of_many_threads_one_counts_and_all_see_the_same(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        for key in range(20):
            seen = set(
                pool.map(
                    lambda writer, key=key: store.create_bytes(f"run/{key}", b"%d" % writer),
                    range(WRITERS),
                )
            )
            assert seen == {store.read_bytes(f"run/{key}")}
    assert len(store.list("run")) == 20


def _create(root_uri: str, writer: int) -> list[bytes]:
    store = ArtifactStore(root_uri)
    return [store.create_bytes(f"run/{key}", b"%d" % writer * 1000) for key in range(50)]


@pytest.mark.parametrize("root_uri", ["file", "s3"], indirect=True)
def test_of_many_processes_one_counts_and_all_see_the_same(root_uri: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.starmap(_create, [(root_uri, writer) for writer in range(3)])
    assert answers[0] == answers[1] == answers[2]
    assert all(len(set(content)) == 1 and len(content) == 1000 for content in answers[0])


def test_a_link_whose_reply_was_lost_counts_as_created(
    local: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link_twice(source: Path, target: Path, **options: bool) -> None:
        """NFS: the first request is done, its reply lost, and the repeat finds the name taken."""
        real(source, target, **options)
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link_twice)
    assert local.create_bytes("a", b"mine") == b"mine"
    assert local.list() == ("a",)


def test_a_file_system_without_hard_links_is_refused_by_name(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path, **options: bool) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PreconditionFailed, match="no hard links") as caught:
        local.create_bytes("run/a", b"x")
    assert str(tmp_path / "store" / "run") in caught.value.message
    assert "s3://" in caught.value.remedy
    assert not list((tmp_path / "store" / "run").iterdir())


@pytest.mark.parametrize("flush", [0, 1])
def test_a_full_disk_leaves_nothing_half_created(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: int
) -> None:
    real, count = os.fsync, iter(range(100))

    def fsync(descriptor: int) -> None:
        if next(count) == flush:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Exhausted, match="no space left"):
        local.create_bytes("a", b"whole")
    assert local.create_bytes("a", b"whole") == b"whole"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


def test_a_store_is_checked_without_a_trace(store: ArtifactStore) -> None:
    store.check()
    assert store.list() == ()


def test_a_store_that_replaces_what_it_should_create_is_refused(
    local: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(self: LocalStorage, path: str, content: bytes) -> bool:
        """A server that knows no conditional put and ignores the condition."""
        self.write(path, content)
        return True

    monkeypatch.setattr(LocalStorage, "create", put)
    with pytest.raises(PreconditionFailed, match="replaces files that exist") as caught:
        local.check()
    assert "If-None-Match" in caught.value.remedy
    assert local.list() == ()


def test_a_probe_whose_reply_was_lost_is_no_fault_of_the_store(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store._storage.create

    def create_twice(path: str, content: bytes) -> bool:
        """The first put is done, its reply lost, and the driver's repeat finds the object there."""
        real(path, content)
        return real(path, content)

    monkeypatch.setattr(store._storage, "create", create_twice)
    store.check()
    assert store.list() == ()
