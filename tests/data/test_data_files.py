"""Where data may lie, and what becomes of a file or an object that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from s3_server import fresh_client

from seal.artifacts import ArtifactStore
from seal.data_files import data_file
from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.errors import InvalidInput, NotFound, PreconditionFailed, Transient

ROW = {
    "title": "Veldra",
    "context": "Veldra is long.",
    "questions": [{"question": "How is Veldra?", "answer": "long"}],
}
ROWS = json.dumps([ROW])
SECRET = "hunter2"


@pytest.mark.parametrize(
    "source",
    [
        "http://example.org/train.json",
        f"https://user:{SECRET}@example.org/train.json",
        f"https://bucket.s3.amazonaws.com/train.json?X-Amz-Signature={SECRET}",
        f"file://user:{SECRET}@host/train.json",
        "memory://bucket/train.json",
        "simplecache::s3://bucket/train.json",
    ],
)
def test_nothing_but_files_and_buckets_is_read_and_no_message_shows_a_secret(source: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        data_file(source)
    assert "give a path, file:///path, s3://bucket/key, gs://bucket/key" in caught.value.remedy
    assert SECRET not in f"{caught.value} {caught.value.details}"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize(
    "address",
    [
        f"key:{SECRET}@bucket/train.json",
        f"key:a/{SECRET}@bucket/train.json",
        f"bucket/train.json?versionId={SECRET}",
        f"bucket/train.json#{SECRET}",
        "",
        "bucket",
        "bucket/",
        "bucket/data/",
        "/train.json",
        "bucket//train.json",
        "bucket/../other/train.json",
        "[bucket]/train.json",
        "bucket/a\\b.json",
        "bucket/a\n.json",
    ],
)
def test_what_names_no_object_is_refused_and_no_message_shows_a_secret(
    scheme: str, address: str
) -> None:
    with pytest.raises(InvalidInput, match="names no object of a bucket") as caught:
        data_file(f"{scheme}://{address}")
    assert f"write {scheme}://bucket/path/train.json" in caught.value.remedy
    assert SECRET not in f"{caught.value} {caught.value.details}"


@pytest.mark.parametrize("path", ["data/train.json", "../train.json", "~/train.json", "a@b?c#d"])
def test_a_path_stays_as_it_was_given(path: str) -> None:
    assert (data_file(path).scheme, data_file(path).path) == ("file", path)


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.json"
    path.write_text(ROWS)
    assert len(load_contexts(str(path))) == 1
    monkeypatch.setattr("seal.data_files.MAX_DATA_BYTES", len(ROWS) - 1)
    monkeypatch.setattr(Path, "read_bytes", _never)
    with pytest.raises(InvalidInput, match=rf"train\.json has {len(ROWS)} bytes, at most"):
        load_contexts(str(path))


def _never(*_: object) -> bytes:
    raise AssertionError("it was read")


# Objects


def put(root: str, path: str, text: str) -> str:
    """Put an object; returns its URI."""
    ArtifactStore(root).write_bytes(path, text.encode())
    return f"{root}/{path}"


def test_an_object_is_read_as_the_file_that_it_is(s3_root: str, tmp_path: Path) -> None:
    text = f"\ufeff{json.dumps(ROW)}\n"
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    source = put(s3_root, "data of mine/træin%20@1.jsonl", text)
    assert load_contexts(source) == load_contexts(str(path))


def test_an_object_of_google_is_read_by_its_bucket_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    driver = MemoryFileSystem()
    driver.pipe_file("bucket/data/train.json", ROWS.encode())
    asked: list[str] = []

    def filesystem(scheme: str, **_: object) -> MemoryFileSystem:
        asked.append(scheme)
        return driver

    monkeypatch.setattr("fsspec.filesystem", filesystem)
    monkeypatch.setattr("seal.object_storage._driver_errors", lambda scheme: ())
    assert [context.title for context in load_contexts("gs://bucket/data/train.json")] == ["Veldra"]
    assert set(asked) == {"gs"}


def test_a_bad_row_of_an_object_is_refused_by_its_uri(s3_root: str) -> None:
    source = put(s3_root, "train.json", json.dumps([ROW, {**ROW, "context": ""}]))
    with pytest.raises(InvalidInput, match="row 2") as caught:
        load_contexts(source)
    assert caught.value.message.startswith(f"{source}, row 2")


def test_an_object_that_is_not_utf_8_is_refused_by_its_uri(s3_root: str) -> None:
    ArtifactStore(s3_root).write_bytes("train.json", b"\xff")
    with pytest.raises(InvalidInput, match=rf"{s3_root}/train\.json is not UTF-8 at byte 0"):
        load_contexts(f"{s3_root}/train.json")


def test_solutions_beside_an_object_of_challenges_are_found(s3_root: str) -> None:
    demonstrations = [{"input": [[1, 2]], "output": [[2, 1]]}] * 2
    task = {"train": demonstrations, "test": [{"input": [[5, 6]]}]}
    source = put(s3_root, "arc_challenges.json", json.dumps({"abc123": task}))
    put(s3_root, "arc_solutions.json", json.dumps({"abc123": [[[6, 5]]]}))
    (context,) = load_contexts(source, domain=get_domain("arc"))
    assert context.queries[0].answers == ("[[6,5]]",)


@pytest.mark.parametrize("path", ["absent.json", "data"])
def test_an_object_that_is_not_there_is_named(s3_root: str, path: str) -> None:
    put(s3_root, "data/train.json", ROWS)
    with pytest.raises(NotFound, match=rf"{s3_root}/{path} does not exist"):
        load_contexts(f"{s3_root}/{path}")


def test_a_bucket_that_is_not_there_is_named(s3_root: str) -> None:
    with pytest.raises(NotFound, match=r"the bucket of s3://no-such-bucket/a\.json does not exist"):
        load_contexts("s3://no-such-bucket/a.json")


def test_an_object_that_may_not_be_read_is_refused_for_good(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(s3_root, "train.json", ROWS)
    with (
        fresh_client(monkeypatch, AWS_SECRET_ACCESS_KEY=SECRET),
        pytest.raises(InvalidInput, match=f"{source}: access was denied") as caught,
    ):
        load_contexts(source)
    # AccessDenied would be taken for a key of the run's store that was just changed, and retried
    assert type(caught.value) is InvalidInput
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.remedy
    assert SECRET not in str(caught.value)


def test_an_object_that_is_too_large_is_not_read(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(s3_root, "train.json", ROWS)
    monkeypatch.setattr("seal.data_files.MAX_DATA_BYTES", len(ROWS) - 1)
    monkeypatch.setattr(ArtifactStore, "read_bytes", _never)
    with pytest.raises(InvalidInput, match=rf"{source} has {len(ROWS)} bytes, at most"):
        load_contexts(source)


def test_a_bucket_that_is_away_is_transient(
    s3_root: str, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        fresh_client(monkeypatch, AWS_ENDPOINT_URL=closed_port, AWS_MAX_ATTEMPTS="1"),
        pytest.raises(Transient, match="cannot be reached"),
    ):
        load_contexts(f"{s3_root}/train.json")


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_a_bucket_without_its_driver_names_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str
) -> None:
    def absent(scheme: str, **_: object) -> None:
        raise ImportError(f"install the driver of {scheme}")

    monkeypatch.setattr("fsspec.filesystem", absent)
    with pytest.raises(PreconditionFailed, match=f"no driver for {scheme}://") as caught:
        load_contexts(f"{scheme}://bucket/train.json")
    assert f"pip install 'seal-kubernetes[{extra}]'" in caught.value.remedy
