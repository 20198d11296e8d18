"""What this machine is, for the report: figures of time mean nothing without it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from seal.errors import InvalidInput, PreconditionFailed
from seal.report.numbers.model import Machine
from seal.settings import EngineSettings

PACKAGES = ("torch", "transformers", "numpy", "grpcio", "pydantic")
"""Versions worth writing down."""


def package_version(name: str = "seal-kubernetes") -> str:
    """Installed version of a package; `unknown` where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def describe_machine(*, device: str, dtype: str, gemm_teraflops: float | None) -> Machine:
    """Describe the machine that this runs on."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_gib=_memory_bytes() / 2**30,
        device=device,
        versions={"seal": package_version(), "python": platform.python_version()}
        | {name: package_version(name) for name in PACKAGES},
        dtype=dtype,
        gemm_teraflops=gemm_teraflops,
    )


def gemm_peak(engine: EngineSettings) -> tuple[str, float]:
    """The type that the engine will compute in, and how fast this machine multiplies it, TFLOP/s.

    Raises:
        PreconditionFailed: the engine is not installed.
        InvalidInput: this machine has no such device.
    """
    try:
        from seal.engine.peak import measure_gemm_peak
        from seal.engine.precision import compute_dtype, dtype_name
    except ImportError as error:
        raise engine_missing(error) from error
    try:
        dtype = compute_dtype(engine.dtype, engine.device)
        return dtype_name(dtype), measure_gemm_peak(dtype=dtype, device=engine.device)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # what torch raises for a device that is not there
        message = f"device {engine.device!r} cannot be used: {str(error).splitlines()[0]}"
        raise InvalidInput(
            message,
            field="device",
            remedy="choose another one, for example --engine device=cpu",
        ) from error


def engine_missing(error: ImportError) -> PreconditionFailed:
    """The refusal where the engine's packages are not installed."""
    return PreconditionFailed(
        f"the engine cannot be loaded: {error}",
        remedy="install it: pip install 'seal-kubernetes[local]'",
    )


def _processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    """Physical memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
