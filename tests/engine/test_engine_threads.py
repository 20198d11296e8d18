"""Only the engine's thread computes in parallel, whoever computed before it or beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_model import save_tiny_model

from seal.engine.available import cpu_limit
from seal.engine.threads import in_parallel, threads_for

OBSERVE = """
import json, sys, threading
from pathlib import Path
import torch
from seal.engine import Engine, GenerationRequest
from seal.engine.threads import in_parallel
from seal.settings import EngineSettings

seen = {"all": torch.get_num_threads()}

def note(name):
    seen[name] = torch.get_num_threads()

settings = EngineSettings(dtype="float32", threads=int(sys.argv[2]))
engine = Engine.load(Path(sys.argv[1]), name="tiny", settings=settings)
request = GenerationRequest(
    run="r",
    policy=None,
    prompts=("a",),
    seeds=((1,),),
    temperature=1.0,
    top_p=1.0,
    max_tokens=1,
)
engine.generate(request, lambda done, tokens: note("engine")).future.result(60)
in_parallel(lambda: note("peak"))
note("main")
later = threading.Thread(target=note, args=("later",))
later.start()
later.join()
engine.close()
print(json.dumps(seen))
"""


@pytest.mark.parametrize("setting", [0, 3])
def test_the_engine_takes_the_threads_and_all_others_compute_with_one(
    tmp_path: Path, setting: int
) -> None:
    command = [sys.executable, "-c", OBSERVE, str(save_tiny_model(tmp_path)), str(setting)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen == {
        "all": seen["all"],
        "engine": setting or seen["all"],
        "peak": seen["all"],
        "main": 1,
        "later": 1,
    }


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/pod/box/cpu.max": "400000 100000\n",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/name-of-the-host\n4:memory:/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_limit_of_cpus_is_the_least_that_the_control_groups_grant(tmp_path, files, limit):
    assert cpu_limit(write(tmp_path, files)) == limit


@pytest.mark.parametrize(
    ("limit", "environment", "threads"),
    [
        (None, {}, 64),
        (2.0, {}, 2),
        (1.5, {}, 1),
        (0.25, {}, 1),
        (100.0, {}, 64),
        (2.0, {"OMP_NUM_THREADS": "64"}, 64),
    ],
)
def test_threads_are_those_that_the_limit_buys_unless_the_environment_names_them(
    limit, environment, threads
):
    assert threads_for(64, limit, environment) == threads


def test_an_error_comes_out_of_the_other_thread() -> None:
    def fail() -> None:
        raise ValueError(threading.current_thread().name)

    with pytest.raises(ValueError, match="ThreadPoolExecutor"):
        in_parallel(fail)
