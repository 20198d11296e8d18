"""Take what installs packages out of this Python: an image installs nothing once it is built.

That is pip, setuptools, wheel and uv, with their commands, and the copies that `ensurepip` brings.
Not by their lists of files: Debian's packages have none.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

INSTALLERS = ("pip", "setuptools", "wheel", "uv")
MODULES = (*INSTALLERS, "ensurepip", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
"""Left alone, the last of them would import the one before at every start."""
COMMAND = re.compile(r"(pip|wheel|uv|uvx|easy_install)[0-9.]*")
FOLDERS = ("/usr/bin", "/usr/local/bin")
BUNDLED = Path("/usr/share/python-wheels")
"""Where Debian keeps ensurepip's."""


def to_remove() -> Iterator[Path]:
    """Files and directories, some of which may be named twice, or be none."""
    for folder in map(Path, filter(None, sys.path)):
        yield from (folder / name for name in MODULES)
        for name in INSTALLERS:
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
    for found in list(to_remove()):
        remove(found)
