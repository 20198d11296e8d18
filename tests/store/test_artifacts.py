"""The artifact store.

Whole or absent, addressed by content, checked on every read, confined to its root.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import seal.manifest
from controller_svc.core import new_status
from controller_svc.runs import read_status
from seal.artifacts import ArtifactStore
from seal.errors import Exhausted, Internal, InvalidInput, NotFound, PreconditionFailed, SealError
from seal.records import AdapterReference
from seal.runs.store import read_prepared
from seal.settings import RunSpec


class Note(BaseModel):
    text: str
    score: float | None = None


def fetched(store: ArtifactStore, reference: AdapterReference) -> Path:
    """Where a fetched directory is; nothing in these tests takes it away."""
    with store.fetch_directory(reference) as directory:
        return directory


def published_file(store: ArtifactStore, reference: AdapterReference, name: str) -> str:
    return f"{reference.path}/{name}"


def tamper(store: ArtifactStore, path: str, content: bytes | None) -> None:
    """Change a stored file behind the store's back; None deletes it."""
    import fsspec

    uri = f"{store.root_uri}/{path}"
    file_system, key = fsspec.url_to_fs(uri)
    if content is None:
        file_system.rm_file(key)
    else:
        file_system.pipe_file(key, content)


# What must not be accepted


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/a",
        "simplecache::s3://bucket/a",
        "ftp://host/a",
        "://a",
        "S3://bucket",
        "zip://a.zip",
    ],
)
def test_a_scheme_that_is_not_allowed_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput, match="no allowed scheme") as caught:
        ArtifactStore(uri)
    assert "file://, s3://, gs://, memory://" in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "file://host/data",
        "file:///",
        "s3://",
        "file:///data/../etc",
        "file:///data/%2e%2e/etc",
        "file:///da%00ta",
        "s3://bucket/a?x=1",
        "file:///caf%E9",
        os.fsdecode(b"/data/caf\xe9"),
    ],
)
def test_a_root_that_is_no_plain_directory_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        ArtifactStore(uri)


@pytest.mark.parametrize(
    "path",
    [
        "../other",
        "a/../../b",
        "/etc/passwd",
        "a//b",
        "",
        ".",
        "a/./b",
        "a\\b",
        "a\nb",
        "file:///a",
        ".tmp-a/b",
    ],
)
def test_a_path_that_leaves_the_root_or_is_not_plain_is_refused(
    store: ArtifactStore, path: str
) -> None:
    for use in (store.read_bytes, store.exists, lambda path: store.write_bytes(path, b"x")):
        with pytest.raises(InvalidInput):
            use(path)


@pytest.mark.parametrize(
    "name",
    [
        "model.bin",
        "code.py",
        "model.pkl",
        "weights.pt",
        "archive.zip",
        ".hidden.json",
        "manifest.json",
    ],
)
def test_only_data_files_are_published(store: ArtifactStore, adapter: Path, name: str) -> None:
    (adapter / name).write_text("x")
    with pytest.raises(InvalidInput, match=name):
        store.publish_directory(adapter, "adapters")
    assert store.list() == ()


def test_links_and_sub_directories_are_not_published(
    local: ArtifactStore, adapter: Path, tmp_path: Path
) -> None:
    (adapter / "link.json").symlink_to(tmp_path)
    with pytest.raises(InvalidInput, match=r"link\.json is no plain file"):
        local.publish_directory(adapter, "adapters")
    (adapter / "link.json").unlink()
    (adapter / "more.json").mkdir()
    with pytest.raises(InvalidInput, match=r"more\.json is no plain file"):
        local.publish_directory(adapter, "adapters")


def test_an_empty_or_missing_directory_is_not_published(
    local: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="is empty"):
        local.publish_directory(tmp_path / "empty", "adapters")
    with pytest.raises(InvalidInput, match="is no directory"):
        local.publish_directory(tmp_path / "absent", "adapters")


@pytest.mark.parametrize(
    "elsewhere", ["/adapters/{}", "file:///adapters/{}", "../x/{}", "a/../{}", ""]
)
def test_a_reference_outside_the_root_is_refused_whatever_lies_there(
    local: ArtifactStore, adapter: Path, elsewhere: str
) -> None:
    good = local.publish_directory(adapter, "adapters")
    path = elsewhere.replace("{}", good.sha256)
    with pytest.raises(InvalidInput) as caught:
        fetched(local, AdapterReference(path=path, sha256=good.sha256))
    assert caught.value.field == "path"


def test_a_reference_holds_where_the_same_volume_is_mounted_elsewhere(
    local: ArtifactStore, adapter: Path, tmp_path: Path
) -> None:
    good = local.publish_directory(adapter, "adapters")
    root = Path(local.root_uri.removeprefix("file://"))
    moved = ArtifactStore(str(root.rename(tmp_path / "mounted-elsewhere")))
    assert fetched(moved, good).is_dir()


def test_a_link_that_leads_out_of_the_root_is_refused(
    local: ArtifactStore, adapter: Path, tmp_path: Path
) -> None:
    other = ArtifactStore((tmp_path / "other-tenant").as_uri())
    foreign = other.publish_directory(adapter, "adapters")
    local.write_bytes("note.txt", b"x")
    (tmp_path / "store" / "adapters").symlink_to(tmp_path / "other-tenant" / "adapters")
    with pytest.raises(InvalidInput, match="through a link"):
        fetched(local, AdapterReference(path=f"adapters/{foreign.sha256}", sha256=foreign.sha256))


def test_a_malformed_digest_is_refused(local: ArtifactStore) -> None:
    with pytest.raises(InvalidInput) as caught:
        fetched(local, AdapterReference(path=f"{local.root_uri}/adapters/abc", sha256="ABC"))
    assert caught.value.field == "sha256"


# What has been damaged


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("adapter_model.safetensors", lambda content: content[:-1], "adapter_model.safetensors"),
        (
            "adapter_model.safetensors",
            lambda content: b"\xff" + content[1:],
            "adapter_model.safetensors",
        ),
        ("adapter_model.safetensors", lambda content: None, "adapter_model.safetensors"),
        ("manifest.json", lambda content: content + b" ", "manifest.json"),
        ("extra.json", lambda content: b"{}", "extra.json is not in the manifest"),
    ],
)
def test_a_truncated_altered_missing_or_extra_file_is_refused_by_name(
    store: ArtifactStore,
    adapter: Path,
    name: str,
    damage: Callable[[bytes], bytes | None],
    message: str,
) -> None:
    reference = store.publish_directory(adapter, "adapters")
    path = published_file(store, reference, name)
    tamper(store, path, damage(store.read_bytes(path) if store.exists(path) else b""))
    with pytest.raises(Internal, match=message) as caught:
        fetched(store, reference)
    assert reference.sha256 in str(caught.value)
    assert ".tmp-" not in str(caught.value)
    assert "publish or train it again" in str(caught.value)


def test_a_directory_without_manifest_is_not_published(store: ArtifactStore, adapter: Path) -> None:
    reference = store.publish_directory(adapter, "adapters")
    tamper(store, published_file(store, reference, "manifest.json"), None)
    with pytest.raises(NotFound, match=r"not published: it has no manifest\.json"):
        fetched(store, reference)


def test_an_absent_directory_is_not_found(store: ArtifactStore) -> None:
    with pytest.raises(NotFound):
        fetched(store, AdapterReference(path=f"adapters/{'0' * 64}", sha256="0" * 64))


def test_publishing_again_repairs_a_damaged_directory(store: ArtifactStore, adapter: Path) -> None:
    reference = store.publish_directory(adapter, "adapters")
    tamper(store, published_file(store, reference, "adapter_model.safetensors"), b"short")
    assert store.publish_directory(adapter, "adapters") == reference
    repaired = fetched(store, reference) / "adapter_model.safetensors"
    assert repaired.read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()


def test_a_damaged_local_copy_of_an_object_is_downloaded_again(
    adapter: Path, tmp_path: Path
) -> None:
    store = ArtifactStore("memory://copies/seal", cache_dir=tmp_path / "cache")
    reference = store.publish_directory(adapter, "adapters")
    copy = fetched(store, reference)
    (copy / "adapter_model.safetensors").write_bytes(b"")
    assert (fetched(store, reference) / "adapter_model.safetensors").stat().st_size == 10240


@pytest.mark.parametrize(
    "content", [b"", b'{"text": ', b'{"txt": "a"}', b'{"text": 1, "score": "high"}', b"\xff\xfe"]
)
def test_a_file_that_holds_no_such_model_is_refused_by_name(
    store: ArtifactStore, content: bytes
) -> None:
    store.write_bytes("run/note.json", content)
    with pytest.raises(Internal, match=r"run/note\.json holds no Note") as caught:
        store.read_json("run/note.json", Note)
    assert caught.value.remedy


def test_reading_what_is_not_there_names_the_uri(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match=f"{store.root_uri}/run/absent.json"):
        store.read_json("run/absent.json", Note)
    assert store.find_json("run/absent.json", Note) is None


def test_what_is_deleted_while_it_is_looked_for_is_not_there(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone_after_a_look(path: str) -> bool:
        store.remove(path)
        return True

    monkeypatch.setattr(store, "exists", gone_after_a_look)
    assert asyncio.run(read_status(store, "run")) is None
    assert asyncio.run(read_prepared(store, "run")) is None
    store.write_json("run/status.json", new_status(RunSpec(), run="run"))
    assert asyncio.run(read_status(store, "run")) is not None


def test_what_is_removed_while_it_is_fetched_is_not_there_and_is_not_called_damaged(
    store: ArtifactStore, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = store.publish_directory(adapter, "adapters")

    def read_and_remove(*args: Any, **named: Any) -> seal.manifest.Manifest:
        manifest = seal.manifest.read_manifest(*args, **named)
        store.remove_directory(reference)
        return manifest

    for module in ("storage", "object_storage"):
        monkeypatch.setattr(f"seal.{module}.read_manifest", read_and_remove)
    with pytest.raises(NotFound):
        fetched(store, reference)
    assert store.list() == ()


def test_whoever_reads_files_that_are_being_removed_is_told_that_they_are_not_there(
    local: ArtifactStore, adapter: Path
) -> None:
    reference = local.publish_directory(adapter, "adapters")

    def read() -> None:
        with local.fetch_directory(reference):
            local.remove_directory(reference)
            raise Internal("adapter_model.safetensors is missing")

    with pytest.raises(NotFound):
        read()


# The disk


def full_disk_after(monkeypatch: pytest.MonkeyPatch, *, flushes: int) -> None:
    """From the given flush on, the disk is full."""
    real, count = os.fsync, iter(range(10_000))

    def fsync(descriptor: int) -> None:
        if next(count) >= flushes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr("seal.files.os.fsync", fsync)


@pytest.mark.parametrize("flushes", range(5))
def test_a_full_disk_while_publishing_names_the_path_and_leaves_nothing(
    local: ArtifactStore,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flushes: int,
) -> None:
    with monkeypatch.context() as patched:
        full_disk_after(patched, flushes=flushes)
        with pytest.raises(Exhausted, match="no space left") as caught:
            local.publish_directory(adapter, "run/adapters")
    assert str(tmp_path / "store" / "run" / "adapters") in caught.value.message
    assert "free space" in caught.value.remedy and caught.value.retry_after_seconds
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(".tmp-")]
    assert fetched(local, local.publish_directory(adapter, "run/adapters")).is_dir()


def test_a_full_disk_keeps_the_old_content_of_a_file(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.write_json("status.json", Note(text="old"))
    full_disk_after(monkeypatch, flushes=0)
    with pytest.raises(Exhausted, match=r"status\.json"):
        local.write_json("status.json", Note(text="new"))
    assert local.read_json("status.json", Note).text == "old"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["status.json"]


def test_a_full_disk_in_the_middle_of_the_copy_is_exhausted_too(
    local: ArtifactStore, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path) -> tuple[str, int]:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr("seal.manifest.copy_durably", copy)
    with pytest.raises(Exhausted):
        local.publish_directory(adapter, "adapters")
    assert local.list() == () and not list((tmp_path / "store" / "adapters").iterdir())


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(SealError, match="file/store"):
        ArtifactStore(f"{tmp_path}/file/store").write_bytes("a", b"x")


def test_missing_permission_is_said(local: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PreconditionFailed, match=r"no permission for .*a\.json"):
        local.write_bytes("a.json", b"x")
    assert local.list() == ()


@pytest.mark.parametrize("step", range(6))
def test_an_interrupted_publish_leaves_nothing_visible(
    local: ArtifactStore, adapter: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Dies at each call that makes something durable, without any tidying up, as after kill -9.

    Steps 0-2 flush two files and the manifest, 3 flushes their directory, 4 renames it, 5 flushes
    the rename.
    """
    calls = iter(range(10_000))

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if next(calls) == step:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    with monkeypatch.context() as patched:
        patched.setattr("seal.files.os.fsync", dying(os.fsync))
        patched.setattr(Path, "rename", dying(Path.rename))
        patched.setattr("seal.storage.shutil.rmtree", lambda path, ignore_errors: None)
        with pytest.raises(KeyboardInterrupt):
            local.publish_directory(adapter, "adapters")
    assert len(local.list()) == (3 if step == 5 else 0)
    assert fetched(local, local.publish_directory(adapter, "adapters")).is_dir()


def test_leftovers_of_killed_writers_are_removed_and_young_ones_kept(
    local: ArtifactStore, adapter: Path, tmp_path: Path
) -> None:
    local.publish_directory(adapter, "run/adapters")
    for name, age_seconds in ((".tmp-old", 7200), (".tmp-young", 0)):
        leftover = tmp_path / "store" / "run" / "adapters" / name
        leftover.mkdir()
        (leftover / "adapter_model.safetensors").write_bytes(b"half")
        os.utime(leftover, (time.time() - age_seconds,) * 2)
    assert len(local.list()) == 3
    assert local.remove_leftovers("run") == 1
    assert (
        not (tmp_path / "store/run/adapters/.tmp-old").exists()
        and (tmp_path / "store/run/adapters/.tmp-young").exists()
    )


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY, errno.EACCES, errno.EIO])
def test_a_leftover_that_somebody_still_writes_stays_and_other_errors_are_told(
    local: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "store/run/.tmp-at-work").mkdir(parents=True)

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("shutil.rmtree", fail)
    if number in (errno.ENOENT, errno.ENOTEMPTY):
        assert local.remove_leftovers("run", older_than_seconds=0.0) == 0
        return
    with pytest.raises(SealError, match="run"):
        local.remove_leftovers("run", older_than_seconds=0.0)


def test_the_age_of_a_file_begins_anew_whenever_it_is_written(store: ArtifactStore) -> None:
    store.write_bytes("a/file", b"one")
    assert -1 < store.age_seconds("a/file") < 30
    time.sleep(1.1)
    before = store.age_seconds("a/file")
    store.write_bytes("a/file", b"one")
    assert store.age_seconds("a/file") < before - 0.5
    with pytest.raises(NotFound):
        store.age_seconds("a/other")


def test_the_size_of_a_file_is_known_without_reading_it(store: ArtifactStore) -> None:
    store.write_bytes("a/file", b"five!")
    assert store.size_bytes("a/file") == 5
    with pytest.raises(NotFound):
        store.size_bytes("a/other")


# What it is for


def test_the_address_of_a_directory_is_the_digest_of_its_content(
    store: ArtifactStore, adapter: Path
) -> None:
    first = store.publish_directory(adapter, "run/adapters")
    assert first.path == f"run/adapters/{first.sha256}"
    assert store.publish_directory(adapter, "run/adapters") == first
    assert store.publish_directory(adapter, "other/adapters").sha256 == first.sha256
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    assert store.publish_directory(adapter, "run/adapters").sha256 != first.sha256
    assert fetched(store, first).joinpath("adapter_config.json").read_text() == '{"r": 4}'


def test_file_and_object_store_give_the_same_address(
    adapter: Path, tmp_path: Path, local: ArtifactStore
) -> None:
    remote = ArtifactStore("memory://same/seal", cache_dir=tmp_path / "cache")
    assert (
        local.publish_directory(adapter, "a").sha256
        == remote.publish_directory(adapter, "a").sha256
    )


def test_a_directory_comes_back_as_it_was(store: ArtifactStore, adapter: Path) -> None:
    directory = fetched(store, store.publish_directory(adapter, "adapters"))
    for source in adapter.iterdir():
        assert (directory / source.name).read_bytes() == source.read_bytes()
    manifest = json.loads((directory / "manifest.json").read_bytes())
    assert sorted(manifest["files"]) == ["adapter_config.json", "adapter_model.safetensors"]


def test_published_files_can_be_read_by_other_users_as_the_umask_says(
    local: ArtifactStore, adapter: Path
) -> None:
    (adapter / "adapter_model.safetensors").chmod(0o600)
    directory = fetched(local, local.publish_directory(adapter, "adapters"))
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((directory / "adapter_model.safetensors").stat().st_mode) == 0o666 & ~umask


def test_a_removed_file_is_gone_its_neighbour_stays_and_removing_it_again_changes_nothing(
    store: ArtifactStore,
) -> None:
    store.write_bytes("run/a", b"1")
    store.write_bytes("run/b", b"2")
    for _ in range(2):
        store.remove("run/a")
        assert not store.exists("run/a")
        assert store.list("run") == ("run/b",)
    with pytest.raises(InvalidInput):
        store.remove("../b")


def test_models_and_bytes_come_back_as_they_were(store: ArtifactStore) -> None:
    store.write_json("run/stages/r1/a.json", Note(text="Größe", score=None))
    store.write_json("run/stages/r1/a.json", Note(text="Größe", score=0.5))
    assert store.read_json("run/stages/r1/a.json", Note) == Note(text="Größe", score=0.5)
    store.write_bytes("run/records.jsonl", b"\x00\xff")
    assert store.read_bytes("run/records.jsonl") == b"\x00\xff"


def test_list_gives_relative_paths_of_all_files_beneath_a_prefix(store: ArtifactStore) -> None:
    for path in ("run/b/2.json", "run/b/1.json", "run/c.json", "run-2/d.json"):
        store.write_bytes(path, b"x")
    assert store.list("run") == ("run/b/1.json", "run/b/2.json", "run/c.json")
    assert store.list("run/b") == ("run/b/1.json", "run/b/2.json")
    assert store.list("absent") == ()
    assert store.list() == ("run-2/d.json", "run/b/1.json", "run/b/2.json", "run/c.json")
    assert store.exists("run/c.json") and not store.exists("run/b") and not store.exists("run/x")


def test_a_root_may_be_written_as_one_types_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ArtifactStore("../runs").root_uri == (tmp_path.resolve() / "runs").as_uri()
    assert ArtifactStore("~/runs").root_uri == (tmp_path / "home" / "runs").as_uri()
    with pytest.raises(NotFound, match="there is no such user") as caught:
        ArtifactStore("~nobody-of-this-name/runs")
    assert caught.value.field and caught.value.remedy


def test_a_local_path_is_a_root_too_and_odd_characters_survive(
    adapter: Path, tmp_path: Path
) -> None:
    store = ArtifactStore(str(tmp_path / "my artifacts #1 100%"))
    assert store.root_uri.startswith("file:///") and "%20" in store.root_uri
    reference = ArtifactStore(store.root_uri).publish_directory(adapter, "adapters")
    assert (
        fetched(store, reference)
        == (tmp_path / "my artifacts #1 100%" / "adapters" / reference.sha256).resolve()
    )
