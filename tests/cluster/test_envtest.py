"""`make envtest`: the programs of a control plane from their projects, whole and checked."""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import envtest
import pytest

PROGRAMS = {*envtest.PROGRAMS, "etcd"}


class Server:
    """A mirror of what the projects publish."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.asked: list[str] = []

    def put(self, path: str, content: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    @property
    def mirrors(self) -> list[str]:
        return ["--kubernetes", f"{self.url}/kubernetes", "--etcd", f"{self.url}/etcd/"]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("envtest.architecture", lambda: "amd64")
    root = tmp_path / "mirror"
    root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            server.asked.append(self.path)

    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(root))
    ) as listening:
        server = Server(root, f"http://127.0.0.1:{listening.server_address[1]}")
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        publish(server)
        yield server
        listening.shutdown()


def publish(server: Server) -> None:
    for program in envtest.PROGRAMS:
        content = f"#!/bin/sh\necho {program}\n".encode()
        path = f"kubernetes/{envtest.KUBERNETES_VERSION}/bin/linux/amd64/{program}"
        server.put(path, content)
        server.put(f"{path}.sha256", hashlib.sha256(content).hexdigest().encode())
    name = f"etcd-{envtest.ETCD_VERSION}-linux-amd64"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(f"{name}/etcd")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"etcd"))
    root = f"etcd/{envtest.ETCD_VERSION}"
    server.put(f"{root}/{name}.tar.gz", packed.getvalue())
    sums = {
        "other.tar.gz": "0" * 64,
        f"{name}.tar.gz": hashlib.sha256(packed.getvalue()).hexdigest(),
    }
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
    server.put(f"{root}/SHA256SUMS", lines.encode())


def test_all_programs_are_there_can_be_run_and_are_fetched_once(
    mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "assets"
    assert envtest.main([str(folder), *mirror.mirrors]) == 0
    assert {path.name for path in folder.iterdir()} == PROGRAMS
    assert all(path.stat().st_mode & 0o111 for path in folder.iterdir())
    assert (folder / "etcd").read_bytes() == b"etcd"
    assert capsys.readouterr().out == f"export KUBEBUILDER_ASSETS={folder}\n"
    asked = len(mirror.asked)
    assert envtest.main([str(folder), *mirror.mirrors]) == 0
    assert len(mirror.asked) == asked > 0


@pytest.mark.parametrize("broken", ["kubectl", "etcd"])
def test_what_does_not_have_the_published_checksum_is_not_kept(
    mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    (path,) = (
        path
        for path in mirror.root.rglob(f"{broken}*")
        if path.is_file() and not path.name.endswith(".sha256")
    )
    path.write_bytes(path.read_bytes() + b"more")
    folder = tmp_path / "assets"
    assert envtest.main([str(folder), *mirror.mirrors]) == 1
    assert "sha256" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} <= PROGRAMS - {broken}
    publish(mirror)
    assert envtest.main([str(folder), *mirror.mirrors]) == 0
    assert {path.name for path in folder.iterdir()} == PROGRAMS


def test_a_server_that_does_not_have_them_is_named(
    mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert envtest.main([str(tmp_path / "a"), "--kubernetes", f"{mirror.url}/nowhere"]) == 1
    assert f"{mirror.url}/nowhere/" in capsys.readouterr().err


def test_where_no_server_is_published_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert envtest.main([str(tmp_path / "a")]) == 1
    assert "KUBEBUILDER_ASSETS" in capsys.readouterr().err
