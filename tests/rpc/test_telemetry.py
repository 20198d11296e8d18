"""Logs are one JSON object a line with what was bound; metrics keep the naming rules."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import urllib.request
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry

from seal.errors import InvalidInput
from seal.metrics import Metrics, metrics
from seal.options import all_addresses
from seal.telemetry import configure_logging, start_metrics_server


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_unknown_level_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(InvalidInput, match="debug, info, warning, error"):
        configure_logging("loud")


def test_a_metrics_port_in_use_is_refused_by_number_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"127.0.0.1:{port} is in use") as caught:
            start_metrics_server(port, host="127.0.0.1")
    assert caught.value.field == "metrics_port" and "--metrics-port" in caught.value.remedy


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="99999 cannot be opened"):
        start_metrics_server(99999, host="127.0.0.1")


def test_a_log_line_is_one_json_object_with_the_bound_run() -> None:
    stream = io.StringIO()
    configure_logging("info", json=True, stream=stream)
    structlog.contextvars.bind_contextvars(run="demo", round=1)
    structlog.get_logger("seal.test").info("training ended", steps=3, text="Größe\nzwei")
    logging.getLogger("other.library").warning("disk at %d %%", 91)
    ours, theirs = lines(stream)
    assert (ours["event"], ours["run"], ours["round"], ours["steps"], ours["level"]) == (
        "training ended",
        "demo",
        1,
        3,
        "info",
    )
    assert ours["logger"] == "seal.test" and str(ours["timestamp"]).endswith("Z")
    assert (theirs["event"], theirs["run"], theirs["level"], theirs["logger"]) == (
        "disk at 91 %",
        "demo",
        "warning",
        "other.library",
    )


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging(json=as_json, stream=stream)
    document = "the secret passage"
    try:
        raise ValueError("broken" if document else "")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "broken" in stream.getvalue() and "secret" not in stream.getvalue()
    if as_json:
        assert [line["event"] for line in lines(stream)] == ["failed"]


def test_what_a_caller_sent_begins_no_line_of_a_log_and_steers_no_terminal() -> None:
    stream = io.StringIO()
    configure_logging("info", json=False, stream=stream)
    structlog.get_logger("test").warning("refused \n", name="x)\nerror: FORGED\x1b[2J\x00\x9b")
    (line,) = stream.getvalue().removesuffix("\n").split("\n")
    assert "FORGED" in line and line.isprintable()


STEERING = "one\u2028two\u2029three\x9b2J\x85\x7f Köln"


@pytest.mark.parametrize("as_json", [True, False])
def test_what_ends_a_line_or_steers_a_terminal_beyond_ascii_is_escaped_too(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logging("info", json=as_json, stream=stream)
    structlog.get_logger("test").warning("refused", name=STEERING)
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable() and "Köln" in line
    if as_json:
        assert json.loads(line)["name"] == STEERING


def test_lines_below_the_level_are_not_written_and_configuring_twice_does_not_double_them() -> None:
    stream = io.StringIO()
    for _ in range(2):
        configure_logging("warning", json=True, stream=stream)
    structlog.get_logger().info("quiet")
    logging.getLogger("httpx").info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize(
    "name",
    ["openai._base_client", "botocore.auth", "aiobotocore.endpoint", "kubernetes.aio.client.rest"],
)
def test_a_log_at_debug_level_shows_no_request_with_its_credentials(name: str) -> None:
    stream = io.StringIO()
    configure_logging("debug", json=True, stream=stream)
    logging.getLogger(name).debug("headers: x-amz-security-token, a passage")
    structlog.get_logger().debug("ours")
    assert [line["event"] for line in lines(stream)] == ["ours"]


def test_without_a_terminal_logs_are_json_unless_console_is_asked_for() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    structlog.get_logger().info("one")
    assert lines(stream)[0]["event"] == "one"
    console = io.StringIO()
    configure_logging(json=False, stream=console)
    structlog.get_logger().info("two", steps=3)
    assert (
        "two" in console.getvalue()
        and "steps=3" in console.getvalue()
        and "{" not in console.getvalue()
    )


def test_metric_names_keep_the_rules() -> None:
    for family in Metrics(CollectorRegistry()).registry.collect():
        assert family.name.startswith(("seal_", "grpc_server_")) and ":" not in family.name
        assert family.type != "counter" or not family.name.endswith(
            "_total"
        )  # the client library adds _total to the samples
        assert family.documentation.endswith(".")


def test_the_metrics_endpoint_serves_what_was_counted() -> None:
    mine = Metrics(CollectorRegistry())
    mine.trainings.labels(outcome="diverged").inc()
    mine.engine_busy_seconds.labels(kind="train", device="cpu").inc(1.5)
    server = start_metrics_server(0, host="127.0.0.1", registry=mine.registry)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as reply:
            text = reply.read().decode()
    finally:
        server.stop()
    assert 'seal_trainings_total{outcome="diverged"} 1.0' in text
    assert 'seal_engine_busy_seconds_total{device="cpu",kind="train"} 1.5' in text
    assert "seal_training_steps_total 0.0" in text and "seal_generated_tokens_total 0.0" in text
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=1)


def test_metrics_for_all_are_there_by_ipv4_and_by_ipv6() -> None:
    """There are clusters whose pods have no address of IPv4."""
    server = start_metrics_server(0, host=all_addresses(), registry=CollectorRegistry())
    try:
        for host in ("127.0.0.1", "[::1]") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
            url = f"http://{host}:{server.port}/metrics"
            with urllib.request.urlopen(url, timeout=5) as reply:
                assert reply.status == 200
    finally:
        server.stop()


def test_the_metrics_of_the_process_include_its_memory() -> None:
    names = {family.name for family in metrics.registry.collect()}
    assert {"seal_inner_loops", "process_resident_memory_bytes", "python_info"} <= names


def test_calls_that_end_with_their_server_are_no_errors_of_grpc() -> None:
    stream = io.StringIO()
    configure_logging(json=True, stream=stream)
    log = logging.getLogger("grpc._cython.cygrpc")
    for error in (asyncio.CancelledError(), RuntimeError("a defect")):
        log.error("Exception not handled", exc_info=error)
    (line,) = stream.getvalue().splitlines()
    assert "a defect" in line
