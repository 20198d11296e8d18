"""How much memory is left: of a machine, the container around us, or a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

USABLE_SHARE = 0.9
"""Of what is free, the share that is counted on: the allocator's rounding, Python and other
processes need some too."""


def usable_bytes(device: str) -> int:
    """Bytes that an engine may count on, on `cpu` or a CUDA device."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = free_host_bytes()
    return int(USABLE_SHARE * free)


def free_host_bytes(root: Path = Path("/")) -> int:
    """Memory that can be had without swapping.

    The machine's MemAvailable, or what the limits of our control groups leave, if less.
    `root` is where `proc` and `sys` are. A system without /proc/meminfo tells its whole memory.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    machine = 1024 * int(lines["MemAvailable"].split()[0])
    return max(0, min([machine, *_left_in_groups(root)]))


def cpu_limit(root: Path = Path("/")) -> float | None:
    """CPUs that the limits of our control groups grant; None without a limit."""
    return min(_cpus_of_groups(root), default=None)


def _cpus_of_groups(root: Path) -> Iterator[float]:
    for controllers, group in _groups(root, "cpu"):
        try:
            if controllers:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                quota, period = ((group / name).read_text(encoding="ascii") for name in names)
            else:
                quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        except FileNotFoundError:
            continue
        if quota.strip() != "max" and int(quota) > 0:
            yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[tuple[str, Path]]:
    """Control groups above this process, its own first: controllers ("" in v2) and directory."""
    membership = root / "proc/self/cgroup"
    if not membership.is_file():
        return
    for line in membership.read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        group = mount / path.lstrip("/")
        # a container sees its own group at the mount, under whatever path the host has for it
        for place in (group, *group.parents):
            if not place.is_relative_to(mount):
                break
            yield controllers, place


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each memory limit above this process leaves.

    Cgroup v2 and v1, its own group and every group around it.
    """
    for controllers, group in _groups(root, "memory"):
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        if (left := _left(group, *names)) is not None:
            yield left


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    """Limit less usage of one group, None without a limit.

    File cache that can be dropped does not count as used.
    """
    try:
        text = (group / limit).read_text(encoding="ascii").strip()
        if text == "max":
            return None
        used = int((group / usage).read_text(encoding="ascii"))
        statistics = dict(
            line.split()
            for line in (group / "memory.stat").read_text(encoding="ascii").splitlines()
        )
    except FileNotFoundError:
        return None
    return int(text) - used + int(statistics.get(cache, 0))
