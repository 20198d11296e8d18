"""The client of examples/ does with the services what the README says."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

import pytest
from tiny_model import tiny_model

from controller_svc.local.services import serve_engine
from seal.engine import Engine
from seal.settings import EngineSettings

CLIENT = Path(__file__).parents[2] / "examples" / "call_services.py"


async def test_the_client_of_the_readme_trains_an_adapter_and_asks_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(CLIENT))["main"]
    engine = Engine(tiny_model(), EngineSettings(slots=1, dtype="float32", max_rank=8))
    async with serve_engine(engine, root=tmp_path) as addresses:
        await asyncio.to_thread(
            main,
            trainer=addresses.trainer,
            evaluator=addresses.evaluator,
            model="tiny-llama",
            epochs=2,
        )
    engine.close()
    said = capsys.readouterr().out
    assert said.index("before: ") < said.index("adapter by-hand/") < said.index("after:  ")
