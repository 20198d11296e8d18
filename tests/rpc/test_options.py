"""One option list: flags, SEAL_* variables, and what is decided by where the process runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from seal import options
from seal.errors import InvalidInput
from seal.options import ServiceOptions, all_addresses, in_container
from seal.rpc.settings import ServerSettings
from seal.settings import EngineSettings


def test_every_engine_and_server_setting_is_an_option_with_the_same_default() -> None:
    given = ServiceOptions.parse(["--artifacts", "a"])
    assert given.part(EngineSettings) == EngineSettings()
    assert given.part(ServerSettings) == ServerSettings(unready_seconds=given.unready_seconds)


def test_a_flag_wins_over_its_variable_and_the_variable_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEAL_MAX_ROW_TOKENS", "512")
    monkeypatch.setenv("SEAL_ARTIFACTS", "from-the-environment")
    monkeypatch.setenv("SEAL_GRADIENT_CHECKPOINTING", "on")
    monkeypatch.setenv("SEAL_OFFLINE", "true")
    given = ServiceOptions.parse(["--max-row-tokens", "256", "--no-offline"])
    assert (given.artifacts, given.max_row_tokens) == ("from-the-environment", 256)
    assert (given.gradient_checkpointing, given.offline) == ("on", False)
    assert given.part(EngineSettings).max_row_tokens == 256


@pytest.mark.parametrize(
    ("variable", "value"), [("SEAL_SLOTS", "many"), ("SEAL_GRACE_SECONDS", "-1")]
)
def test_a_wrong_variable_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput) as caught:
        ServiceOptions.parse(["--artifacts", "a"])
    assert variable in caught.value.remedy


def test_metrics_listen_on_this_machine_alone_unless_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ServiceOptions.parse(["--artifacts", "a"])
    for inside, address in ((False, "127.0.0.1"), (True, all_addresses())):
        monkeypatch.setattr(options, "in_container", lambda inside=inside: inside)
        assert given.metrics_host == address
        told = ServiceOptions.parse(["--artifacts", "a", "--metrics-address", "10.0.0.1"])
        assert told.metrics_host == "10.0.0.1"


def test_a_container_is_known_by_its_environment_or_its_files(tmp_path: Path) -> None:
    mark = tmp_path / ".dockerenv"
    assert not in_container({}, files=(str(mark),))
    assert in_container({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, files=())
    assert in_container({"container": "podman"}, files=())
    mark.touch()
    assert in_container({}, files=(str(mark),))
