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

from seal.engine.threads import in_parallel

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


def test_an_error_comes_out_of_the_other_thread() -> None:
    def fail() -> None:
        raise ValueError(threading.current_thread().name)

    with pytest.raises(ValueError, match="ThreadPoolExecutor"):
        in_parallel(fail)
