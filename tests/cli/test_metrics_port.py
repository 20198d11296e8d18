"""`--metrics-port`: what a command does on this machine, for Prometheus."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from command import RUN, one_line, seal
from fake_services import Fakes

from seal.errors import SealError


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        return str(reply.read().decode())


def test_a_run_serves_its_metrics_for_as_long_as_it_lasts(
    here: Path, fakes: Fakes, port: int
) -> None:
    seen: list[str] = []

    def scrape(kind: str, request_id: str, call: int) -> SealError | None:
        seen.append(scraped(port))
        return None

    fakes.fail = scrape
    assert seal(*RUN, "--metrics-port", str(port)) == 0
    assert 'seal_inner_loops_total{outcome="ok"}' in seen[-1]
    with pytest.raises(OSError):
        scraped(port)


@pytest.mark.parametrize("command", [RUN, ["serve"]])
def test_a_port_that_is_taken_is_refused_before_anything_is_done(
    command: list[str], here: Path, fakes: Fakes, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert seal(*command, "--metrics-port", str(port)) == 2
    said = one_line(capsys.readouterr().err)
    assert f"127.0.0.1:{port} is in use" in said and "--metrics-port" in said
    assert not (here / "seal-runs").exists()
