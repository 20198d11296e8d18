"""Does a tree hold what an image does not need? `check.py ROOT...` names it, and ends with 1.

Looked for are programs that install or compile, pip itself, and what package managers keep. Not
looked for is setuptools: torch requires it, to build at run time what its compiler generates.
`--compilers-stay` is for images on a base with Triton, which compiles its kernels' launchers when
they are first called.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PROGRAMS = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "opt/seal/bin")
INSTALLER = re.compile(r"(pip|easy_install|conda|mamba|uv|poetry)[0-9.]*")
COMPILER = re.compile(
    r"([a-z0-9_]+-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|c89|c99|clang|clang\+\+|ld|as|cpp)(-[0-9.]+)?"
    r"|make|cmake|ninja|nvcc|rustc|cargo|go"
)
CACHES = (
    "var/lib/apt/lists/*_*",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/*.bin",
    "root/.cache/*",
    "home/*/.cache/*",
    "tmp/*",
    "var/tmp/*",
)
MODULES = "pip"
"""A distribution of this name, wherever Python looks for some."""


def unwanted(root: Path, *, compilers_stay: bool) -> Iterator[str]:
    """What a tree holds that an image does not need, in words."""
    for folder in PROGRAMS:
        for path in sorted((root / folder).glob("*")):
            if INSTALLER.fullmatch(path.name):
                yield f"{path} installs"
            elif COMPILER.fullmatch(path.name) and not compilers_stay:
                yield f"{path} compiles"
    for place in ("usr/lib/python3*", "usr/local/lib/python3*", "opt/*"):
        for path in sorted(root.glob(f"{place}")):
            for found in (path, path / "site-packages", path / "dist-packages"):
                if (found / MODULES / "__init__.py").exists():
                    yield f"{found / MODULES} installs"
            yield from (f"{wheel} installs" for wheel in path.glob("ensurepip/_bundled/*.whl"))
    for pattern in CACHES:
        yield from (f"{path} is a cache" for path in sorted(root.glob(pattern)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Look into each root; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--compilers-stay", action="store_true")
    given = parser.parse_args(arguments)
    found = [
        what for root in given.roots for what in unwanted(root, compilers_stay=given.compilers_stay)
    ]
    for what in found:
        sys.stderr.write(f"{what}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
