"""A whole run on a real S3: what it decides and makes is what it does on a disk.

The server's endpoint comes from the environment, its credentials from there or from a file, and no
log, record or message holds them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_harness import IMPATIENT, RUN, small_spec
from engine_services import ENGINE
from fake_services import Fakes, serve_fakes
from s3_server import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    S3Server,
    forget_clients,
    fresh_client,
    s3_server,
)
from tiny_model import save_tiny_model

from controller_svc.core import Phase, RunStatus
from controller_svc.local.observer import SilentObserver
from controller_svc.local.services import local_services
from controller_svc.local.world import run_local
from seal.artifacts import ArtifactStore
from seal.errors import Retryable
from seal.records import SelectionRecord
from seal.resources import RestEMRun
from seal.runs.store import selection_path
from seal.settings import RunSpec

SMALL_LORA = {"rank": 2, "alpha": 4.0, "target_modules": ("q_proj", "v_proj")}
RESUMES = 20
"""An outage is over long before."""


def end_of(root: str, status: RunStatus) -> object:
    """What a run decided and made."""
    store = ArtifactStore(root)
    selection = store.read_json(selection_path(RUN, 1), SelectionRecord)
    assert status.phase is Phase.COMPLETE and selection.kept
    policies = [policy.adapter and policy.adapter.sha256 for policy in status.policies]
    # Epochs count how often somebody began, clocks tell how long it took; all else is written once
    files = [
        path
        for path in store.list(f"{RUN}/stages")
        if "/epochs/" not in path and not path.endswith("/clock.json")
    ]
    return selection.sha256, policies, sorted(files)


async def test_a_run_on_s3_selects_and_makes_what_it_does_on_a_disk(
    s3_root: str, tmp_path: Path
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    ended = []
    for root in (str(tmp_path / "artifacts"), s3_root):
        async with serve_fakes(Fakes()) as addresses:
            status = await run_local(
                RestEMRun.of(RUN, spec), root=root, services=addresses, settings=IMPATIENT
            )
        ended.append(end_of(root, status))
    assert ended[0] == ended[1]


# A server that dies


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server of this test's own, its variables set."""
    with s3_server(tmp_path / "s3") as running, fresh_client(monkeypatch, **running.environment):
        yield running


class Outages(SilentObserver):
    """Kills the server as each stage begins, and brings it back a moment later."""

    def __init__(self, server: S3Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self.killed: list[tuple[int, str]] = []

    def on_status(self, status: RunStatus) -> None:
        place = (status.round, str(status.stage))
        if status.stage is None or status.stage == "prepare" or place in self.killed:
            return
        self.killed.append(place)
        self._server.kill()
        self._loop.call_later(0.5, self._server.start)


async def to_the_end(spec: RunSpec, root: str, observer: SilentObserver, cache: Path) -> RunStatus:
    """Run it on a tiny random model; who lost the store goes on, as `seal run --resume` does."""
    async with local_services(spec.model, root=root, engine=ENGINE) as services:
        for attempt in range(RESUMES):
            try:
                return await run_local(
                    RestEMRun.of(RUN, spec),
                    root=root,
                    services=services.addresses,
                    resume=attempt > 0,
                    progress=observer,
                    settings=IMPATIENT,
                )
            except Retryable:
                await asyncio.sleep(1)
    raise AssertionError("the run does not end")


@pytest.mark.timeout(300)
async def test_a_server_that_is_killed_in_every_stage_and_comes_back_changes_no_digest(
    server: S3Server, tmp_path: Path
) -> None:
    spec = small_spec(
        tmp_path,
        passages=(2, 1, 1),
        rounds=1,
        model=str(save_tiny_model(tmp_path / "model")),
        edit={"k": 2, "max_tokens": 40},
        inner={"repeats": 1, "lora": SMALL_LORA, "optimizer": {"epochs": 2, "learning_rate": 0.05}},
        improve={"lora": SMALL_LORA, "optimizer": {"epochs": 1}},
        evaluation={"grader": "logprob", "max_tokens": 4},
        validation={"edits_per_context": 1, "retained_queries": 1},
    )
    calm, disturbed = f"s3://{BUCKET}/calm", f"s3://{BUCKET}/disturbed"
    undisturbed = await to_the_end(spec, calm, SilentObserver(), tmp_path)
    outages = Outages(server, asyncio.get_running_loop())
    status = await to_the_end(spec, disturbed, outages, tmp_path)
    assert outages.killed == [(0, "validate"), (1, "rollout"), (1, "improve"), (1, "validate")]
    assert end_of(disturbed, status) == end_of(calm, undisturbed)


# Credentials


SCRIPT = """
import asyncio, sys
from controller_harness import IMPATIENT, RUN, small_spec
from fake_services import Fakes, serve_fakes
from controller_svc.local.world import run_local
from pathlib import Path
from seal.artifacts import ArtifactStore
from seal.resources import RestEMRun
from seal.telemetry import configure_logging

configure_logging("debug", True)

async def work(root, directory):
    async with serve_fakes(Fakes(store=ArtifactStore(root))) as addresses:
        spec = small_spec(Path(directory), rounds=0)
        await run_local(RestEMRun.of(RUN, spec), root=root, services=addresses, settings=IMPATIENT)

asyncio.run(work(*sys.argv[1:]))
"""


def run_with(environment: dict[str, str], root: str, directory: Path) -> tuple[int, str]:
    """A run in a process that has these variables; its exit code, and all that it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    repository = Path(__file__).resolve().parents[2]
    paths = f"{repository}{os.pathsep}{repository / 'tests/support'}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, root, str(directory)],
        check=False,
        env={**kept, **environment, "PYTHONPATH": paths},
        cwd=directory,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run_takes_its_credentials_from_a_file_or_the_environment_and_tells_nobody(
    running_s3: S3Server, s3_root: str, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        f"[team]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    place = {
        name: value
        for name, value in running_s3.environment.items()
        if name not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    of_file = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "team"}
    wrong = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY[::-1]}
    for name, credentials, ends_well in (
        ("file", of_file, True),
        ("environment", dict(running_s3.environment), True),
        ("wrong", wrong, False),
    ):
        directory = tmp_path / name
        directory.mkdir()
        code, said = run_with(place | credentials, f"{s3_root}/{name}", directory)
        assert (code == 0) is ends_well, said[-2000:]
        assert said and SECRET_KEY not in said and SECRET_KEY[::-1] not in said
    forget_clients()
    store = ArtifactStore(s3_root)
    for path in store.list("file"):
        assert SECRET_KEY.encode() not in store.read_bytes(path)
