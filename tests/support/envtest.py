"""Fetch the programs of a control plane for the tests: `python envtest.py DIRECTORY`.

etcd, kube-apiserver, kube-controller-manager and kubectl as their projects publish them, each
checked against the sha256 that is published beside it. What is there already is not fetched again;
a program appears under its name only once it is whole. Prints the line that tells the tests where
they are.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "v1.34.4"
ETCD_VERSION = "v3.6.10"
KUBERNETES = "https://dl.k8s.io"
ETCD = "https://github.com/etcd-io/etcd/releases/download"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TIMEOUT_SECONDS = 120

Fetch = Callable[[str], bytes]


class EnvtestError(Exception):
    """What keeps the programs from being fetched, for people."""


@dataclass(frozen=True)
class Release:
    """Where the programs are published: other places mirror these."""

    kubernetes: str = KUBERNETES
    etcd: str = ETCD


def fetch(url: str) -> bytes:
    """What is at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as reply:
            return reply.read()
    except OSError as error:
        raise EnvtestError(f"{url}: {error}") from error


def architecture() -> str:
    """This machine's, as the projects call it. Their servers are published for Linux alone."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in ARCHITECTURES:
        raise EnvtestError(
            f"no kube-apiserver is published for {platform.system()} {machine}: run the tests in a "
            "Linux container, or name a folder with the programs in KUBEBUILDER_ASSETS"
        )
    return ARCHITECTURES[machine]


def provide(directory: Path, *, release: Release = Release(), get: Fetch = fetch) -> None:
    """Bring all programs that are not in `directory`. Raises EnvtestError."""
    kind = architecture()
    directory.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        if not (directory / program).exists():
            url = f"{release.kubernetes}/{KUBERNETES_VERSION}/bin/linux/{kind}/{program}"
            published = get(f"{url}.sha256").decode().split()[0]
            _put(directory / program, _checked(get(url), published, url))
    if not (directory / "etcd").exists():
        name = f"etcd-{ETCD_VERSION}-linux-{kind}"
        root = f"{release.etcd}/{ETCD_VERSION}"
        sums = dict(
            reversed(line.split()) for line in get(f"{root}/SHA256SUMS").decode().splitlines()
        )
        url = f"{root}/{name}.tar.gz"
        if f"{name}.tar.gz" not in sums:
            raise EnvtestError(f"{root}/SHA256SUMS does not name {name}.tar.gz")
        archive = _checked(get(url), sums[f"{name}.tar.gz"], url)
        _put(directory / "etcd", _member(archive, f"{name}/etcd", url))


def _checked(content: bytes, published: str, url: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != published:
        raise EnvtestError(f"{url}: its sha256 is {found}, published is {published}")
    return content


def _member(archive: bytes, name: str, url: str) -> bytes:
    """One file of an archive; nothing is unpacked to where the archive says."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        try:
            file = opened.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise EnvtestError(f"{url}: there is no {name} in it")
        return file.read()


def _put(path: Path, content: bytes) -> None:
    """All of it or nothing, and to be run."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.chmod(0o755)
    part.rename(path)


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kubernetes", default=KUBERNETES, help="a mirror (%(default)s)")
    parser.add_argument("--etcd", default=ETCD, help="a mirror (%(default)s)")
    given = parser.parse_args(arguments)
    release = Release(kubernetes=given.kubernetes.rstrip("/"), etcd=given.etcd.rstrip("/"))
    try:
        provide(given.directory, release=release)
    except EnvtestError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"export KUBEBUILDER_ASSETS={given.directory.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
