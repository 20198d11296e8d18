"""Clean clones, environments and virtual environments: what a new user of the project has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORK_VARIABLES = ("PIP_", "SSL_", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""First letters of what a machine sets so that programs reach the package index."""
KEPT_VARIABLES = ("PATH", "LANG", "TMPDIR")


def clean_environment(home: Path) -> dict[str, str]:
    """Variables of a user who has nothing: home, model cache and user site are empty.

    What stays is how this machine reaches its package index: pip's settings and pip's cache.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_VARIABLES or name.upper().startswith(NETWORK_VARIABLES)
    }
    home.mkdir()
    settings = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return environment | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": settings,
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR") or _pip_cache(),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONNOUSERSITE": "1",
    }


@cache
def _pip_cache() -> str:
    asked = [sys.executable, "-m", "pip", "cache", "dir"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def clone(directory: Path) -> Path:
    """A copy of what git has of this working tree, changes that are not committed included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():  # a file that was deleted is still in the index
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)
    return directory


def run(command: list[str], *, env: dict[str, str], cwd: Path, timeout_seconds: float = 300) -> str:
    """What a command prints; an error shows all of it."""
    done = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        timeout=timeout_seconds,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


TRIES_AGAIN = "looking at multiple versions"
"""pip's words (`PipReporter`): "pip is looking at multiple versions of ..."."""


@dataclass(frozen=True)
class Resolved:
    """What pip found for a requirement."""

    distributions: frozenset[str]
    """`name==version` of all that it brings."""
    tried_again: tuple[str, ...]
    """What pip said where a version that it had taken did not fit the others."""


@dataclass(frozen=True)
class Unpacked:
    """Distributions that pip has installed once, of which other environments have a part."""

    site: Path
    """Their directory."""
    known: dict[str, Distribution]
    """By normalised name."""

    @classmethod
    def at(cls, python: Path) -> Unpacked:
        """Those of a virtual environment."""
        site = site_packages(python)
        found = distributions(path=[str(site)])
        return cls(site, {canonicalize_name(one.name): one for one in found})

    def brought_by(self, requirement: str) -> frozenset[str]:
        """Names of all that pip installs for a requirement; KeyError names one that is not here."""
        asked, done = [Requirement(requirement)], set[tuple[str, str]]()
        while asked:
            wanted = asked.pop()
            name = canonicalize_name(wanted.name)
            for extra in {"", *wanted.extras} - {extra for one, extra in done if one == name}:
                done.add((name, extra))
                needs = map(Requirement, self.known[name].requires or ())
                asked += [
                    one for one in needs if not one.marker or one.marker.evaluate({"extra": extra})
                ]
        return frozenset(name for name, _ in done)

    def link(self, names: frozenset[str], site: Path) -> None:
        """Put these, and nothing else, into the directory of another environment.

        What a distribution has for itself is linked whole, so that Python compiles it once; where
        several share a directory (`google`, `opentelemetry`) each file is.
        """
        owners = Counter(top for one in self.known.values() for top in _tops(one))
        for name in names:
            for file in self.known[name].files or ():
                top = file.parts[0]
                path = Path(top) if owners[top] == 1 else Path(file)
                if top == ".." or "__pycache__" in path.parts or (site / path).is_symlink():
                    continue  # programs, and what Python makes by itself
                (site / path).parent.mkdir(parents=True, exist_ok=True)
                (site / path).symlink_to(self.site / path)


def _tops(distribution: Distribution) -> set[str]:
    return {file.parts[0] for file in distribution.files or ()}


def site_packages(python: Path) -> Path:
    """Where a virtual environment has its distributions."""
    (found,) = python.parents[1].glob("lib/python*/site-packages")
    return found


@dataclass(frozen=True)
class Installer:
    """Makes virtual environments from one wheel of the project."""

    directory: Path
    environment: dict[str, str]
    source: Path
    """A clean clone."""

    def pip(self, python: Path, *arguments: str) -> None:
        """Run pip of a virtual environment."""
        command = [str(python), "-m", "pip", *arguments, "--quiet"]
        run(command, env=self.environment, cwd=self.directory)

    def new_environment(self, name: str, *options: str) -> Path:
        """Python of a new, empty virtual environment."""
        made = self.directory / name
        command = [sys.executable, "-m", "venv", *options, str(made)]
        run(command, env=self.environment, cwd=self.directory)
        return made / "bin" / "python"

    def build_wheel(self, python: Path) -> Path:
        """The project as its users' pip builds it."""
        self.pip(python, "wheel", "--no-deps", "--wheel-dir", "wheel", str(self.source))
        (wheel,) = (self.directory / "wheel").glob("*.whl")
        return wheel

    def resolve(self, python: Path, requirement: str) -> Resolved:
        """What a requirement brings under the constraints. Raises TimeoutExpired."""
        report = self.directory / "resolved.json"
        command = [
            *(str(python), "-m", "pip", "install", "--dry-run", "--ignore-installed"),
            *("--report", str(report)),
            *("--constraint", str(self.source / "constraints.txt"), requirement),
        ]
        said = run(command, env=self.environment, cwd=self.directory)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
        return Resolved(
            distributions=frozenset(f"{item['name']}=={item['version']}" for item in found),
            tried_again=tuple(line for line in said.splitlines() if TRIES_AGAIN in line),
        )
