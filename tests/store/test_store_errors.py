"""What a store that is away, full or closed to this user becomes; never an absent file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import fresh_client, s3_server

from seal.artifacts import ArtifactStore
from seal.errors import (
    AccessDenied,
    Exhausted,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
)
from seal.object_storage import ObjectStorage, _classified

AWAY = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN]
READS: list[Callable[[ArtifactStore], object]] = [
    lambda store: store.exists("run/a"),
    lambda store: store.read_bytes("run/a"),
    lambda store: store.list("run"),
    lambda store: store.bytes_under("run"),
]
WRITES: list[Callable[[ArtifactStore], object]] = [
    lambda store: store.write_bytes("run/b", b"x"),
    lambda store: store.create_bytes("run/b", b"x"),
]


def break_calls(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    """Let system calls on paths of the store fail."""
    for name in names:
        monkeypatch.setattr(os, name, failing_in_store(number, getattr(os, name)))


def failing_in_store(number: int, real: Callable[..., object]) -> Callable[..., object]:
    def call(path: object, *rest: object, **more: object) -> object:
        if isinstance(path, str | Path) and "/store/" in f"{path}/":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **more)

    return call


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_a_store_without_its_driver_names_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str, extra: str
) -> None:
    def absent(scheme: str, **options: object) -> None:
        raise ImportError(f"install the driver of {scheme}")

    monkeypatch.setattr("fsspec.filesystem", absent)
    with pytest.raises(PreconditionFailed, match=f"no driver for {scheme}://") as caught:
        ObjectStorage(scheme, "bucket", cache=tmp_path)
    assert f"pip install 'seal-kubernetes[{extra}]'" in caught.value.remedy


@pytest.mark.parametrize("number", AWAY, ids=errno.errorcode.get)
@pytest.mark.parametrize("use", READS)
def test_a_volume_that_is_away_is_transient_and_never_an_absent_file(
    local: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    use: Callable[[ArtifactStore], object],
) -> None:
    local.write_bytes("run/a", b"x")
    monkeypatch.setattr("io.open", failing(number))
    break_calls(monkeypatch, number, "stat", "lstat", "scandir")
    with pytest.raises(Transient, match="cannot be reached"):
        use(local)


def failing(number: int) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, Transient),
        (errno.ESTALE, Transient),
        (errno.ENOSPC, Exhausted),
        (errno.EDQUOT, Exhausted),
        (errno.EROFS, PreconditionFailed),
        (errno.EACCES, PreconditionFailed),
    ],
)
@pytest.mark.parametrize("use", WRITES)
def test_a_write_that_fails_is_classed_and_leaves_nothing(
    local: ArtifactStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[SealError],
    use: Callable[[ArtifactStore], object],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(number))
        with pytest.raises(kind, match="run/b"):
            use(local)
    assert not local.exists("run/b")
    assert not list((tmp_path / "store" / "run").iterdir())


def test_a_directory_where_a_file_should_be_is_said(local: ArtifactStore) -> None:
    local.write_bytes("run/a/b", b"x")
    for use in (local.read_bytes, lambda path: local.write_bytes(path, b"x")):
        with pytest.raises(InvalidInput, match="cannot be used as a file"):
            use("run/a")
    assert not local.exists("run/a")


# Object stores


def test_an_object_that_is_cut_off_at_every_try_is_transient(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec
    from aiohttp import ClientPayloadError

    def cut(key: str) -> bytes:
        raise ClientPayloadError("Response payload is not completed")

    monkeypatch.setattr(fsspec.filesystem("s3", use_listings_cache=False), "cat_file", cut)
    with pytest.raises(Transient, match="cannot be reached"):
        ArtifactStore(s3_root).read_bytes("run/a")


@pytest.mark.parametrize("use", [*READS, *WRITES])
def test_an_endpoint_that_is_away_is_transient_and_never_an_absent_object(
    s3_root: str,
    closed_port: str,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[ArtifactStore], object],
) -> None:
    away = {"AWS_ENDPOINT_URL": closed_port, "AWS_MAX_ATTEMPTS": "1"}
    with (
        fresh_client(monkeypatch, **away),
        pytest.raises(Transient, match="cannot be reached"),
    ):
        use(ArtifactStore(s3_root))


@pytest.mark.parametrize("use", [*READS, *WRITES])
def test_credentials_that_are_refused_are_invalid_and_their_variables_named(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, use: Callable[[ArtifactStore], object]
) -> None:
    with (
        fresh_client(monkeypatch, AWS_SECRET_ACCESS_KEY="not-this-one"),
        pytest.raises(AccessDenied, match="access was denied") as caught,
    ):
        use(ArtifactStore(s3_root))
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.remedy


def test_absent_credentials_are_invalid_and_their_variables_named(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = {
        "AWS_ACCESS_KEY_ID": None,
        "AWS_SECRET_ACCESS_KEY": None,
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "absent"),
        "AWS_CONFIG_FILE": str(tmp_path / "absent"),
    }
    with (
        fresh_client(monkeypatch, **absent),
        pytest.raises(AccessDenied, match="access was denied") as caught,
    ):
        ArtifactStore(s3_root).exists("a")
    assert "AWS_ACCESS_KEY_ID" in caught.value.remedy


def test_a_bucket_that_is_not_there_is_named(s3_root: str) -> None:
    with pytest.raises(NotFound, match=r"the bucket of s3://no-such-bucket/.* does not exist"):
        ArtifactStore("s3://no-such-bucket/runs").create_bytes("a", b"x")


def test_a_server_that_dies_and_comes_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        s3_server(tmp_path / "s3") as server,
        fresh_client(monkeypatch, **server.environment, AWS_MAX_ATTEMPTS="1"),
    ):
        store = ArtifactStore("s3://seal/runs")
        assert store.create_bytes("a", b"first") == b"first"
        server.kill()
        with pytest.raises(Transient):
            store.create_bytes("b", b"x")
        server.start()
        assert store.create_bytes("a", b"second") == b"first"
        assert store.create_bytes("b", b"x") == b"x"


def reply(status: int, code: str) -> OSError:
    """The driver's error for a reply of the server, as s3fs makes it from botocore's."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    response = {
        "Error": {"Code": code, "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error: OSError = translate_boto_error(ClientError(response, "PutObject"))
    return error


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", Transient),
        (503, "SlowDown", Transient),
        (503, "503", Transient),
        (429, "TooManyRequests", Transient),
        (400, "RequestTimeout", Transient),
        (400, "ExpiredToken", Transient),
        (403, "RequestTimeTooSkewed", Transient),
        (403, "AccessDenied", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (301, "PermanentRedirect", InvalidInput),
        (400, "InvalidBucketName", InvalidInput),
        (404, "NoSuchBucket", NotFound),
        (404, "NoSuchKey", NotFound),
        (507, "XMinioStorageFull", Exhausted),
    ],
)
def test_a_reply_of_an_object_store_has_its_class(
    status: int, code: str, kind: type[SealError]
) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    assert type(_classified(reply(status, code), scheme="s3", where="s3://b/a")) is kind
