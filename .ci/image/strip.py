"""Take what installs packages out of this Python: an image installs nothing once it is built.

That is pip, setuptools, wheel and uv, with their commands, and the copies that `ensurepip` brings.
Not by their lists of files: Debian's packages have none. Setuptools stays where another
package requires it: torch's compiler calls it at run time.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

PARTS = {
    "pip": ("pip", "ensurepip"),
    "wheel": ("wheel",),
    "uv": ("uv",),
    "setuptools": (
        "setuptools",
        "pkg_resources",
        "_distutils_hack",
        "distutils-precedence.pth",  # left alone, it would import the one before at every start
    ),
}
"""Distributions, and what of them lies in a directory of packages."""
COMMAND = re.compile(r"(pip|wheel|uv|uvx|easy_install)[0-9.]*")
FOLDERS = ("/usr/bin", "/usr/local/bin")
BUNDLED = Path("/usr/share/python-wheels")
"""Where Debian keeps ensurepip's."""


def users_of_setuptools() -> set[str]:
    """Packages whose metadata require it, but as an extra: who knows whether that was asked for."""
    return {
        package.metadata["Name"]
        for package in distributions()
        for line in package.requires or ()
        if re.match(r"setuptools(?![\w.-])", line) and "extra" not in line
    } - PARTS.keys()


def to_remove() -> Iterator[Path]:
    """Files and directories, some of which may be named twice, or be none."""
    names = [name for name in PARTS if name != "setuptools" or not users_of_setuptools()]
    for folder in map(Path, filter(None, sys.path)):
        for name in names:
            yield from (folder / part for part in PARTS[name])
            yield from folder.glob(f"{name}-*.dist-info")
            yield from folder.glob(f"{name}-*.egg-info")
    for folder in {sysconfig.get_path("scripts"), *FOLDERS}:
        yield from (path for path in Path(folder).glob("*") if COMMAND.fullmatch(path.name))
    yield BUNDLED


def remove(path: Path) -> None:
    """Whatever it is, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():  # a volume that is read-only refuses what is not there
        path.unlink()


if __name__ == "__main__":
    if sys.prefix != sys.base_prefix:
        sys.exit("this is a virtual environment and no image")
    if users := users_of_setuptools():
        sys.stdout.write(f"setuptools stays: {', '.join(sorted(users))} may need it at run time\n")
    for found in list(to_remove()):
        remove(found)
