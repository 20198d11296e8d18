"""What an installation contains, and under which licences: a bill of materials (CycloneDX 1.6).

`python -m seal.sbom --to DIRECTORY` writes `sbom.cdx.json`, for programs, and `licenses.txt`, for
people: the Python distributions by their own metadata, the system's packages by dpkg's list and
their copyright files, models by their manifests. Nothing is asked of a network. The same contents
give the same bytes, so there is no time in them. The image has both in /usr/share/doc/seal.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageMetadata
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from seal.manifest import MANIFEST_FILE, parse_manifest

SBOM_FILE, LICENSES_FILE = "sbom.cdx.json", "licenses.txt"
NOT_STATED = "not stated"
LONGEST_NAME = 100
"""A longer `License` field is the text of the licence, and no name."""
_OWN = "seal-kubernetes"
_EMBEDDED = MappingProxyType({"smollm2-135m": "Apache-2.0"})
"""Licences of the models that the project brings; of others their owners say it."""


@dataclass(frozen=True, order=True)
class Component:
    """One thing that is contained."""

    kind: str
    """Of CycloneDX: library, platform, operating-system, machine-learning-model."""
    name: str
    version: str
    purl: str
    """Package URL; empty for what has none."""
    licence: str
    """An SPDX expression where its owner gives one, else their own words; empty: not stated."""
    is_expression: bool = False
    sha256: str = ""
    """Of what a model's manifest says; empty for packages."""

    def to_json(self) -> dict[str, object]:
        """As CycloneDX has it."""
        found: dict[str, object] = {"type": self.kind, "name": self.name, "version": self.version}
        if self.purl:
            found |= {"bom-ref": self.purl, "purl": self.purl}
        if self.is_expression:
            found["licenses"] = [{"expression": self.licence}]
        elif self.licence:
            found["licenses"] = [{"license": {"name": self.licence}}]
        if self.sha256:
            found["hashes"] = [{"alg": "SHA-256", "content": self.sha256}]
        return found


def distributions(path: Sequence[str]) -> Iterator[Component]:
    """Python's, of these directories; of two of a name the one that is imported."""
    seen: set[str] = set()
    for one in importlib.metadata.distributions(path=list(path)):
        name = _normalised(one.metadata["Name"] or "")
        if name and name not in seen:
            seen.add(name)
            yield _of_distribution(one, name)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _of_distribution(one: Distribution, name: str) -> Component:
    licence, is_expression = _licence(one.metadata)
    purl = f"pkg:pypi/{name}@{quote(one.version)}"
    return Component("library", name, one.version, purl, licence, is_expression)


def _licence(metadata: PackageMetadata) -> tuple[str, bool]:
    """What a distribution says, and whether it is an SPDX expression."""
    if "License-Expression" in metadata:
        return metadata["License-Expression"], True
    said = metadata["License"].strip() if "License" in metadata else ""
    if said and len(said) <= LONGEST_NAME and "\n" not in said and said != "UNKNOWN":
        return said, False
    classifiers = metadata.get_all("Classifier") or []
    names = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")]
    return ", ".join(sorted(set(names) - {"OSI Approved"})), False


def system_packages(root: Path) -> Iterator[Component]:
    """Debian's, or those of a system that is made of it; none where there is no dpkg."""
    status = root / "var/lib/dpkg/status"
    if not status.exists():
        return
    system = _fields((root / "etc/os-release").read_text(encoding="utf-8"), "=")
    distribution = f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', '')}".rstrip("-")
    for block in status.read_text(encoding="utf-8").split("\n\n"):
        package = _fields(block, ":")
        if package.get("Status") != "install ok installed":
            continue
        name, version = package["Package"], package["Version"]
        where = f"arch={package['Architecture']}&distro={distribution}"
        purl = f"pkg:deb/{system.get('ID', 'debian')}/{quote(name)}@{quote(version)}?{where}"
        licence = _of_copyright(root / "usr/share/doc" / name / "copyright")
        yield Component("library", name, version, purl, licence)


def _fields(text: str, mark: str) -> dict[str, str]:
    """`Name: value` of each line that begins with one, without quotes."""
    split = (line.partition(mark) for line in text.splitlines() if line[:1].isalpha())
    return {name: value.strip().strip('"') for name, _, value in split}


def _of_copyright(path: Path) -> str:
    """The licences' names in a copyright file, or those of the system's texts that it points to."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    names = re.findall(r"(?m)^License: *(\S.*?) *$", text) if text.startswith("Format:") else []
    return ", ".join(sorted(set(names or re.findall(r"common-licenses/([\w.+-]*\w)", text))))


def models(directory: Path) -> Iterator[Component]:
    """Those that a directory of models holds, by their manifests."""
    for path in sorted(directory.rglob(MANIFEST_FILE)):
        name = path.parent.relative_to(directory).as_posix()
        sha256 = parse_manifest(path.read_bytes(), where=str(path)).sha256
        licence = _EMBEDDED.get(name.partition("/")[0], "")
        version = sha256[:12]
        yield Component("machine-learning-model", name, version, "", licence, bool(licence), sha256)


def python_itself() -> Component:
    """The interpreter, which some images build from source."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return Component("platform", "python", version, purl, "PSF-2.0", is_expression=True)


def bill(components: Sequence[Component]) -> str:
    """The bill of materials as the text of its file."""
    own = [one for one in components if one.name == _OWN]
    whole: dict[str, object] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own[0].to_json() | {"type": "container"}} if own else {},
        "components": [one.to_json() for one in sorted(components) if one not in own],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def licence_list(components: Sequence[Component]) -> str:
    """A line for each component: name, version, licence."""
    width = max((len(f"{one.name} {one.version}") for one in components), default=0)
    lines = [
        f"{f'{one.name} {one.version}':{width}}  {one.licence or NOT_STATED}"
        for one in sorted(components)
    ]
    return "\n".join((*lines, ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse a command line and write both files; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m seal.sbom", description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="directory that gets the files")
    parser.add_argument("--root", type=Path, help="root whose system packages are listed")
    parser.add_argument("--models", type=Path, help="directory of models")
    given = parser.parse_args(arguments)
    found = [python_itself(), *distributions(sys.path)]
    found += system_packages(given.root) if given.root else ()
    found += models(given.models) if given.models else ()
    given.to.mkdir(parents=True, exist_ok=True)
    (given.to / SBOM_FILE).write_text(bill(found), encoding="utf-8")
    (given.to / LICENSES_FILE).write_text(licence_list(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
