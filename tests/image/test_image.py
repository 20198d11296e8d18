"""What goes into the image and what does not: the scripts that its build runs, on small trees."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
INSTALLED = {"torch": "2.14.0+cu130", "numpy": "2.3.5", "click": "8.0.0", "vllm": "0.33.0"}


def script(name: str) -> ModuleType:
    """One of the build's, as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f".ci/image/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("usr/bin/gcc-12", "compiles"),
        ("usr/bin/x86_64-linux-gnu-ld", "compiles"),
        ("usr/local/bin/pip3.11", "installs"),
        ("usr/bin/make", "compiles"),
        ("opt/dependencies/pip/__init__.py", "installs"),
        ("usr/lib/python3/dist-packages/pip/__init__.py", "installs"),
        ("usr/local/lib/python3.11/ensurepip/_bundled/pip-24-py3-none-any.whl", "installs"),
        ("var/lib/apt/lists/deb_dists_main", "cache"),
        ("root/.cache/pip", "cache"),
    ],
)
def test_what_an_image_does_not_need_is_named(
    path: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.touch()
    assert script("check").main([str(tmp_path)]) == 1
    assert path.removesuffix("/__init__.py") in (found := capsys.readouterr().err) and said in found


def test_an_image_of_what_is_needed_passes(tmp_path: Path) -> None:
    for path in ("usr/bin/python3", "usr/bin/asciidoc", "usr/bin/ldd", "opt/seal/bin/seal"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    check = script("check")
    assert check.main([str(tmp_path)]) == 0
    (tmp_path / "usr/bin/cc").touch()
    assert check.main([str(tmp_path)]) == 1
    assert check.main([str(tmp_path), "--compilers-stay"]) == 0, "Triton compiles at run time"


def stripped(root: Path, packages: dict[str, str]) -> list[str]:
    """What a Python's directory of packages, to which these files are added, holds afterwards."""
    venv.create(root)
    python, (folder,) = root / "bin/python", root.glob("lib/python3*/site-packages")
    for path, text in packages.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    for name in ("pip", "pip3", "pip3.11", "pipeline"):
        (root / "bin" / name).touch()
    # A virtual environment borrows ensurepip of the Python that it is made of, which is to stay
    code = (
        f"import runpy; strip = runpy.run_path({str(REPOSITORY / '.ci/image/strip.py')!r});"
        f"found = [one for one in strip['to_remove']() if str(one).startswith({str(root)!r})];"
        "[strip['remove'](one) for one in found]"
    )
    subprocess.run([str(python), "-c", code], check=True, timeout=60)
    assert [path.name for path in (root / "bin").glob("pip*")] == ["pipeline"]
    refused = [str(python), str(REPOSITORY / ".ci/image/strip.py")]
    assert subprocess.run(refused, capture_output=True, check=False).returncode == 1
    return sorted(path.name for path in folder.iterdir())


PIP = {
    "pip/__init__.py": "",
    "pip-24.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pip\nVersion: 24.0\n",
    "pip-24.0.dist-info/RECORD": "pip/__init__.py,,\n../../../bin/pip,,\n",
}
SETUPTOOLS = {
    "setuptools/__init__.py": "",
    "_distutils_hack/__init__.py": "",
    "distutils-precedence.pth": "import os",
    "setuptools-80.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: setuptools\n"
    "Version: 80.9\nRequires-Dist: wheel>=0.43; extra == 'core'\n",
}


def test_a_python_that_is_stripped_runs_and_installs_nothing(tmp_path: Path) -> None:
    kept = {
        "kept-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: kept\nVersion: 1\n"
        "Requires-Dist: setuptools-rust\nRequires-Dist: setuptools>=50; extra == 'build'\n"
    }
    assert stripped(tmp_path, PIP | SETUPTOOLS | kept) == ["kept-1.dist-info"]


def test_what_torch_builds_with_at_run_time_stays_as_its_metadata_ask(tmp_path: Path) -> None:
    torch = {
        "torch-2.14.0+cu130.dist-info/METADATA": "Metadata-Version: 2.1\nName: torch\n"
        'Version: 2.14.0+cu130\nRequires-Dist: setuptools<82; python_version >= "3.10"\n'
    }
    assert stripped(tmp_path, PIP | SETUPTOOLS | torch) == [
        "_distutils_hack",
        "distutils-precedence.pth",
        "setuptools",
        "setuptools-80.9.dist-info",
        "torch-2.14.0+cu130.dist-info",
    ]


def test_a_bases_torch_stays_and_the_rest_is_pinned_as_ever() -> None:
    beside = script("beside")
    pins = ["# Exact versions", "torch==2.13.0", "click==8.5.1", "typer==0.29.2", "numpy==2.4.6"]
    assert list(beside.constraints(pins, INSTALLED)) == [
        "typer==0.29.2",
        "numpy==2.3.5",
        "torch==2.14.0+cu130",
        "vllm==0.33.0",
    ]


def test_what_a_base_lacks_is_installed_beside_it_and_nothing_that_must_stay() -> None:
    beside = script("beside")

    def report(**found: str) -> object:
        return {"install": [{"metadata": {"name": n, "version": v}} for n, v in found.items()]}

    asked = report(typer="0.29.2", click="8.5.1", transformers="5.23.0", seal_kubernetes="0.1.0")
    assert list(beside.lacking(asked, INSTALLED)) == [
        "typer==0.29.2",
        "click==8.5.1",
        "transformers==5.23.0",
    ]
    with pytest.raises(ValueError, match=re.escape("torch 2.13.0 would replace")):
        list(beside.lacking(report(torch="2.13.0"), INSTALLED))


def test_the_build_strips_checks_and_lists_and_every_service_has_a_target() -> None:
    stages = re.findall(r"(?m)^FROM \S+ AS (\S+)$", DOCKERFILE)
    services = {"generator", "trainer", "evaluator", "controller", "api"}
    assert services <= set(stages)
    for name in services:
        assert re.search(rf"(?m)^FROM seal AS {name}$", DOCKERFILE)
    for used in re.findall(r"\.ci/image|/image/(\w+\.py)", DOCKERFILE):
        assert not used or (REPOSITORY / ".ci/image" / used).exists()
    assert "COPY --from=bill /usr/share/doc/seal /usr/share/doc/seal" in DOCKERFILE
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "!.ci/image" in ignored, "the scripts belong to what the build sees"


def test_an_installation_knows_what_it_contains(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path, text in {
        "var/lib/dpkg/status": "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n"
        "Architecture: amd64\nDescription: GNU\n libc\n\nPackage: gone\n"
        "Status: deinstall ok config-files\nVersion: 1\nArchitecture: all\n",
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "usr/share/doc/libc6/copyright": "See /usr/share/common-licenses/LGPL-2.1.\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    command = [sys.executable, "-m", "seal.sbom", "--to", str(tmp_path), "--root", str(root)]
    subprocess.run(command, check=True, timeout=60)
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = {one["name"]: one for one in bill["components"]}
    assert found["grpcio"]["purl"].startswith("pkg:pypi/grpcio@")
    assert found["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12"
    assert found["libc6"]["licenses"] == [{"license": {"name": "LGPL-2.1"}}]
    assert found["python"]["version"] in sys.version
    assert "gone" not in found
    references = [one["bom-ref"] for one in bill["components"] if "bom-ref" in one]
    assert len(references) == len(set(references))
    assert re.search(r"(?m)^grpcio \S+ +Apache", (tmp_path / "licenses.txt").read_text())
    first = (tmp_path / "sbom.cdx.json").read_bytes()
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "sbom.cdx.json").read_bytes() == first
