"""All extras resolve at once, and each brings what the modules that it promises import."""

from __future__ import annotations

import ast
import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import plain_kserve
import pytest
from clean_install import (
    REPOSITORY,
    Installer,
    Resolved,
    Unpacked,
    clean_environment,
    clone,
    run,
    site_packages,
)
from sample_services import sample_services

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]

PACKAGES = ("seal", "generator_svc", "trainer_svc", "evaluator_svc", "controller_svc")
NEEDS = {
    "seal": "",  # the dependencies alone
    "seal.adapters": "engine",
    "seal.api_docs": "dev",
    "seal.documents.html": "documents",
    "seal.documents.pdf": "documents",
    "seal.endpoints": "openai",
    "seal.engine": "engine",
    "seal.report": "controller",
    "seal.rpc.spans": "otel",
    "seal.vllm": "vllm",
    "generator_svc": "generator",
    "generator_svc.openai_backend": "openai",
    "trainer_svc": "trainer",
    "evaluator_svc": "evaluator",
    "evaluator_svc.judge": "openai",
    "controller_svc": "controller",
    "controller_svc.api.serve": "local",
    "controller_svc.k8s": "k8s",
    "controller_svc.k8s.publishing.kserve": "kserve",
    "controller_svc.local": "local",
    "controller_svc.tracking.mlflow": "mlflow",
    "controller_svc.tracking.wandb": "wandb",
}
"""Module -> the extra that it and all below it need; the longest name that fits counts."""
BRINGS = {
    "engine": ("accelerate", "gguf", "huggingface_hub"),  # what GGUF files and hf:// want
    "documents": ("bs4", "pypdf"),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
}
"""Extra -> libraries that are imported by name, by another library, or only if they are there."""
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]
OWN = f"{PROJECT['name']}["
WITHOUT_CONSTRAINTS = {"vllm"}
"""Wants another torch: an environment of its own (CONTRIBUTING.md)."""
RESOLVED = tuple(extra for extra in DECLARED if extra not in WITHOUT_CONSTRAINTS)
IMPORTED = tuple(extra for extra in RESOLVED if extra not in {"kserve", "dev"})
IMPORT = """
import importlib, importlib.util, json, sys, traceback
modules, libraries = json.loads(sys.argv[1])
failed = {}
for name in modules:
    try:
        importlib.import_module(name)
    except Exception:
        failed[name] = traceback.format_exc(limit=-1)
for library, user in libraries.items():
    if importlib.util.find_spec(library) is None:
        failed[user] = f"{library} is not installed"
print(json.dumps(failed))
"""


def closure(extra: str) -> frozenset[str]:
    """An extra and the extras that it takes in."""
    found, more = {extra}, [extra]
    while more:
        for requirement in DECLARED[more.pop()]:
            if requirement.startswith(OWN):
                named = set(requirement.removeprefix(OWN).rstrip("]").split(",")) - found
                found |= named
                more += named
    return frozenset(found)


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the packages, with its file."""
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            name = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
            yield name.removesuffix(".__init__"), file


def needed_extra(module: str) -> str:
    """The extra that a module needs; "" for none."""
    parents = (module.rsplit(".", cut)[0] for cut in range(module.count(".") + 1))
    return next(NEEDS[name] for name in parents if name in NEEDS)


def libraries(file: Path) -> set[str]:
    """Packages that a module imports anywhere, also late, but where it says what to do without."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    prepared = {
        node
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try) and any(map(_catches_a_missing_one, attempt.handlers))
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    found: set[str] = set()
    for node in set(ast.walk(tree)) - prepared:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(PACKAGES)


def _catches_a_missing_one(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type else ""
    return "ImportError" in caught or "ModuleNotFoundError" in caught


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installer]:
    directory = tmp_path_factory.mktemp("extras")
    yield Installer(
        directory=directory,
        environment=clean_environment(directory / "home"),
        source=clone(directory / "clone"),
    )
    shutil.rmtree(directory)  # gigabytes, which pytest would keep for three runs


@pytest.fixture(scope="module")
def python(installer: Installer) -> Path:
    """Python with pip alone, at first."""
    return installer.new_environment("all")


@pytest.fixture(scope="module")
def wheel(installer: Installer, python: Path) -> Path:
    return installer.build_wheel(python)


@pytest.fixture(scope="module")
def resolved(installer: Installer, python: Path, wheel: Path) -> Resolved:
    """What all extras bring."""
    return installer.resolve(python, f"{wheel}[{','.join(RESOLVED)}]")


@pytest.fixture(scope="module")
def unpacked(installer: Installer, python: Path, wheel: Path, resolved: Resolved) -> Unpacked:
    pins = sorted(one for one in resolved.distributions if not one.startswith(PROJECT["name"]))
    installer.pip(python, "install", "--no-deps", "--no-compile", str(wheel), *pins)
    return Unpacked.at(python)


@pytest.fixture(scope="module")
def environment(installer: Installer, unpacked: Unpacked) -> Callable[[str], Path]:
    """Python with the project and what an extra brings, and nothing else."""

    def environment(extra: str) -> Path:
        python = installer.new_environment(extra, "--without-pip")
        names = unpacked.brought_by(f"{PROJECT['name']}[{extra}]")
        unpacked.link(names, site_packages(python))
        return python

    return environment


def test_all_extras_resolve_with_the_constraints_at_the_first_try(resolved: Resolved) -> None:
    """All at once, and each then too: pip has one version of each distribution to take."""
    assert not resolved.tried_again, "pip goes back and forth between versions"
    pinned = (REPOSITORY / "constraints.txt").read_text().lower().replace("_", "-").split()
    unpinned = {
        one
        for one in resolved.distributions
        if one.partition("+")[0].lower().replace("_", "-") not in pinned
        and not one.startswith(("seal-kubernetes", "setuptools"))
    }
    assert not unpinned, "run make constraints"


def test_an_environment_has_what_its_extra_brings_and_nothing_else(
    unpacked: Unpacked, environment: Callable[[str], Path]
) -> None:
    """What the tests below stand on."""
    of_s3 = Unpacked.at(environment("s3")).known
    assert {"seal-kubernetes", "s3fs", "aiobotocore", "grpcio"} <= of_s3.keys()
    assert not {"torch", "kopf", "kserve", "pytest", "pip"} & of_s3.keys()
    assert {"torch", "kopf", "kserve", "pytest", "pip"} <= unpacked.known.keys()


@pytest.mark.parametrize("extra", IMPORTED)
def test_every_module_of_an_extra_imports_with_that_extra_alone(
    extra: str, installer: Installer, environment: Callable[[str], Path]
) -> None:
    extras = closure(extra)
    promised = {name: file for name, file in modules() if needed_extra(name) in extras | {""}}
    users = {library: name for name, file in promised.items() for library in libraries(file)}
    for brings in extras & BRINGS.keys():
        users |= dict.fromkeys(BRINGS[brings], f"extra {brings}")
    said = run(
        [str(environment(extra)), "-c", IMPORT, json.dumps([list(promised), users])],
        env=installer.environment,
        cwd=installer.directory,
    )
    assert json.loads(said.splitlines()[-1]) == {}


def test_kserves_sdk_makes_the_objects_that_the_tests_stand_on(
    installer: Installer, environment: Callable[[str], Path]
) -> None:
    program = str(installer.source / "tests/support/sample_services.py")
    said = run(
        [str(environment("kserve")), program], env=installer.environment, cwd=installer.directory
    )
    built = [plain_kserve.build(service) for service in sample_services()]
    assert json.loads(said.splitlines()[-1]) == built
