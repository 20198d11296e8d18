"""Runs below a root: beginning again, going on, and `seal list`, `status`, `logs` and `rm`."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import grpc
import pytest
from command import RUN, one_line, seal
from fake_services import Fakes

from controller_svc.cli.runs import is_live, listed, remove_run
from controller_svc.local.lock import run_lock
from seal.artifacts import ArtifactStore
from seal.config import load_run
from seal.errors import Conflict

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def other_process(root: Path, run: str) -> Iterator[int]:
    """A process that works at a run."""
    script = """
        import sys
        from controller_svc.local.lock import run_lock
        from seal.artifacts import ArtifactStore
        with run_lock(ArtifactStore(sys.argv[1]), sys.argv[2]):
            print("locked", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(root), run]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield holder.pid
        holder.kill()


# Begin again, go on


def test_a_mistyped_name_is_not_resumed_as_a_new_run(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    calls = Counter(fakes.calls)
    capsys.readouterr()
    assert seal(*RUN, "--name", "tinny", "--resume") == 2
    error = one_line(capsys.readouterr().err)
    assert "there is no run 'tinny'" in error
    assert "did you mean tiny?" in error
    assert fakes.calls == calls
    assert not (here / "seal-runs/tinny").exists()


def test_a_refused_second_process_changes_nothing_of_the_live_one(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    files = {path: path.read_bytes() for path in (here / "seal-runs/tiny").rglob("*.json")}
    log = (here / "seal-runs/tiny/controller.log").read_bytes()
    capsys.readouterr()
    with other_process(here / "seal-runs", "tiny") as pid:
        assert seal(*RUN, "--resume") == 2
        assert f"is being run by process {pid}" in capsys.readouterr().err
        assert seal("rm", "tiny", "--yes") == 2
    assert {path: path.read_bytes() for path in files} == files
    assert (here / "seal-runs/tiny/controller.log").read_bytes() == log


def test_a_finished_demo_shows_its_report_again_and_fresh_begins_anew(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal("demo", "--quick", monkeypatch=monkeypatch) == 0
    calls, first = Counter(fakes.calls), capsys.readouterr().out
    assert seal("demo", "--quick", monkeypatch=monkeypatch) == 0
    again = capsys.readouterr()
    assert again.out == first
    assert fakes.calls == calls
    assert "demo-quick is finished; this is its report." in again.err
    assert "seal demo --quick --fresh" in again.err
    assert seal("demo", "--quick", "--fresh", monkeypatch=monkeypatch) == 0
    assert sum(fakes.calls.values()) == 2 * sum(calls.values())


def test_an_unfinished_demo_goes_on_and_says_so(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted: list[str] = []

    def interrupt_once(kind: str, name: str, call: int) -> None:
        if "r1/rollout" in name and not interrupted:
            interrupted.append(name)  # a second one would end this process at once
            signal.raise_signal(signal.SIGINT)

    fakes.fail = interrupt_once
    assert seal("demo", "--quick", monkeypatch=monkeypatch) == 130
    assert "go on with: seal demo --quick" in one_line(capsys.readouterr().err)
    fakes.fail = lambda kind, name, call: None
    assert seal("demo", "--quick", monkeypatch=monkeypatch) == 0
    error = capsys.readouterr().err
    assert "demo-quick: going on where it stopped." in error
    assert "seal demo --quick --fresh" in error


def test_a_finished_run_goes_on_when_it_is_given_more_rounds(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    calls = sum(fakes.calls.values())
    capsys.readouterr()
    assert seal(*RUN, "--resume", "--set", "rounds=2", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["rounds_done"] == 2
    assert sum(fakes.calls.values()) > calls


def test_a_run_whose_data_were_refused_begins_again_once_they_are_mended(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (here / "train.jsonl").read_text()
    (here / "train.jsonl").write_text("no JSON")
    assert seal(*RUN) == 2
    (here / "train.jsonl").write_text(good)
    assert seal(*RUN) == 0


def test_a_manifest_comes_from_standard_input(here: Path, fakes: Fakes) -> None:
    with subprocess.Popen(["cat", "tiny.yaml"], stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        text = source.stdout.read()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text))
    try:
        assert seal("run", "-", *RUN[2:], "--set", "spec.edit.k=1") == 0
    finally:
        sys.stdin = before
    saved = json.loads((here / "seal-runs/tiny/run.json").read_text())
    assert (saved["kind"], saved["spec"]["edit"]["k"]) == ("RestEMRun", 1)


# Looking at runs


def test_list_shows_every_run_with_its_phase(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("list") == 0
    assert "There are no runs in" in capsys.readouterr().out
    assert seal(*RUN) == 0
    assert seal(*RUN, "--name", "other", "--set", "rounds=0") == 0
    capsys.readouterr()
    assert seal("list", "-o", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["phase"], row["rounds"], row["live"]) for row in rows] == [
        ("other", "Complete", 0, False),
        ("tiny", "Complete", 1, False),
    ]
    with other_process(here / "seal-runs", "tiny"):
        assert seal("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "PHASE", "ROUND", "STAGE", "STARTED", "TOOK"]
    assert "Complete (running now)" in lines[2]
    assert max(map(len, lines)) <= 80


def cut_short(manifest: Path) -> None:
    manifest.write_text('{"kind": "RestEMRun"')


def make_a_directory(manifest: Path) -> None:
    manifest.unlink()
    manifest.mkdir()


@pytest.mark.parametrize("damage", [cut_short, make_a_directory])
def test_a_damaged_run_is_listed_with_its_cause_and_hides_no_other(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    assert seal(*RUN) == 0
    assert seal(*RUN, "--name", "other", "--set", "rounds=0") == 0
    damage(here / "seal-runs/other/run.json")
    capsys.readouterr()
    assert seal("list", "-o", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["phase"]) for row in rows] == [
        ("other", "Unreadable"),
        ("tiny", "Complete"),
    ]
    assert "run.json" in rows[0]["message"]
    assert seal("list") == 0
    assert "other cannot be read" in capsys.readouterr().out


def test_a_run_that_is_deleted_while_it_is_listed_is_left_out(
    here: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(*RUN) == 0
    monkeypatch.setattr("controller_svc.cli.runs.runs_in", lambda _: ("gone", "tiny"))
    assert [line.name for line in listed(ArtifactStore(str(here / "seal-runs")))] == ["tiny"]


def test_status_says_where_a_run_is_and_which_adapter_belongs_to_which_passage(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    capsys.readouterr()
    assert seal("status", "tiny") == 0
    out = capsys.readouterr().out
    assert "phase    Complete" in out
    assert str(here / "seal-runs/tiny") in out
    assert seal("status", "tiny", "--adapters", "-o", "json") == 0
    adapters = json.loads(capsys.readouterr().out)["adapters"]
    assert {row["title"] for row in adapters if row["stage"] == "rollout"} == {
        "Tower 1",
        "Tower 2",
        "Tower 3",
    }
    trained = [row for row in adapters if row["outcome"] == "ok"]
    assert all(len(row["sha256"]) == 64 and row["path"] for row in trained)
    assert seal("status", "tiny", "--adapters") == 0
    shown = capsys.readouterr().out
    assert "round 1, rollout" in shown
    assert f"{trained[0]['path']} (deleted)" in shown, "the fakes keep no files"
    assert all(row["deleted"] for row in trained)


def test_a_run_that_nobody_works_at_is_shown_as_stopped_and_how_it_goes_on(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = iter([True])

    def interrupt_once(kind: str, name: str, call: int) -> None:
        if "/r1/" in name and next(stop, False):
            signal.raise_signal(signal.SIGINT)

    fakes.fail = interrupt_once
    assert seal(*RUN) == 130
    capsys.readouterr()
    assert seal("list") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[:2] == ["tiny", "Stopped"]
    assert "with --resume" in out
    assert seal("status", "tiny") == 0
    assert "Stopped; go on by the command that began it, with --resume" in capsys.readouterr().out
    with other_process(here / "seal-runs", "tiny"):
        assert seal("status", "tiny") == 0
    assert "Running, running now" in capsys.readouterr().out


def test_status_of_a_failed_run_says_why(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.fail = lambda kind, name, call: (
        grpc.StatusCode.FAILED_PRECONDITION if "/r1/" in name else None
    )
    assert seal(*RUN) == 42
    capsys.readouterr()
    assert seal("status", "tiny") == 0
    out = capsys.readouterr().out
    assert "phase    Failed" in out
    assert "\nfailed   " in out


def test_logs_are_read_by_people_as_lines_and_by_programs_as_json(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    capsys.readouterr()
    assert seal("logs", "tiny") == 0
    assert "info: run created" in capsys.readouterr().out
    assert seal("logs", "tiny", "-o", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["run"] for line in lines if line["event"] == "run created"] == ["tiny"]
    assert seal("logs", "nothing") == 2


def test_who_follows_a_log_sees_what_is_logged_until_the_run_has_ended(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(here / "seal-runs"))
    store.write_json("tiny/run.json", load_run(here / "tiny.yaml"))
    log = here / "seal-runs/tiny/controller.log"
    log.write_text('{"event": "begun"}\n')

    def ends_with_a_last_word(store: ArtifactStore, run: str) -> bool:
        with log.open("a") as file:
            file.write('{"event": "ended"}\n')
        return False

    monkeypatch.setattr("controller_svc.cli.runs.is_live", ends_with_a_last_word)
    assert seal("logs", "tiny", "--follow") == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "begun",
        "ended",
    ]


def test_ctrl_c_is_how_one_leaves_a_log_that_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(store: ArtifactStore, run: str) -> bool:
        raise KeyboardInterrupt

    store = ArtifactStore(str(here / "seal-runs"))
    store.write_json("tiny/run.json", load_run(here / "tiny.yaml"))
    (here / "seal-runs/tiny/controller.log").write_text("")
    monkeypatch.setattr("controller_svc.cli.runs.is_live", interrupted)
    assert seal("logs", "tiny", "--follow", "-o", "json") == 130
    assert capsys.readouterr() == ("", "")


def test_rm_asks_or_is_told_and_deletes_the_run_alone(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    assert seal(*RUN, "--name", "other") == 0
    assert seal("rm", "tiny") == 2, "there is nobody to ask"
    assert "add --yes" in capsys.readouterr().err
    assert seal("rm", "tiny", "nothing", "--yes") == 2
    assert (here / "seal-runs/tiny/run.json").exists(), "all or none"
    capsys.readouterr()
    assert seal("rm", "tiny", "tiny", "--yes", "--output", "json") == 0, "twice is meant once"
    assert json.loads(capsys.readouterr().out) == {"deleted": ["tiny"]}
    assert not (here / "seal-runs/tiny").exists()
    assert (here / "seal-runs/other/run.json").exists()
    assert seal(*RUN) == 0, "the name is free again"


def test_rm_keeps_others_away_until_the_run_is_gone(
    here: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(*RUN) == 0
    store, refused = ArtifactStore(str(here / "seal-runs")), []

    def remove_while_another_begins(path: Path) -> None:
        with pytest.raises(Conflict) as caught, run_lock(store, "tiny"):
            pass
        refused.append(caught.value)
        rmtree(path)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", remove_while_another_begins)
    assert seal("rm", "tiny", "--yes") == 0
    assert refused
    assert not (here / "seal-runs/tiny").exists()


def test_an_interrupted_rm_leaves_a_run_and_the_next_deletes_it(
    here: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(*RUN) == 0
    run = here / "seal-runs/tiny"

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        assert seal("rm", "tiny", "--yes") == 130
    assert (run / "run.json").exists() and (run / "prepared.json").exists()
    assert seal(*RUN) == 2, "the name is not free: what is left would be taken for its own"
    assert seal("rm", "tiny", "--yes") == 0
    assert not run.exists()


def test_in_an_object_store_what_makes_a_run_of_its_files_goes_last(
    here: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(*RUN) == 0
    store, removed = ArtifactStore(str(here / "seal-runs")), []
    there = store.list("tiny")
    monkeypatch.setattr("controller_svc.cli.runs.local_directory", lambda _: None)
    monkeypatch.setattr(ArtifactStore, "remove", lambda _, path: removed.append(path))
    remove_run(store, "tiny")
    assert sorted(removed) == list(there)
    assert removed[-2:] == ["tiny/prepared.json", "tiny/run.json"]


@pytest.mark.parametrize("command", [("status",), ("report",), ("rm", "--yes"), ("logs",)])
def test_a_name_of_no_characters_is_an_unset_variable(
    here: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    name, *options = command
    assert seal(name, "", *options) == 2
    error = one_line(capsys.readouterr().err)
    assert "RUN is empty" in error and "variable of the shell" in error


@pytest.mark.parametrize("name", [".", ".."])
def test_a_directory_that_is_no_run_is_not_found(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert seal("report", name) == 2
    assert "holds no run" in one_line(capsys.readouterr().err)


def test_to_look_whether_a_run_is_live_writes_nothing_and_keeps_nobody_away(
    tmp_path: Path,
) -> None:
    store, lock = ArtifactStore(str(tmp_path)), tmp_path / "tiny/.lock"
    lock.parent.mkdir()
    lock.write_text("of yesterday")
    assert not is_live(store, "tiny")
    assert lock.read_text() == "of yesterday"
    with lock.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_live(store, "tiny"), "others may look at the same time"
        seen = threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN))
        seen.start()
        with run_lock(store, "tiny"):
            assert is_live(store, "tiny")
        seen.join()


def test_a_lock_that_went_with_its_run_holds_nobody_up_and_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = ArtifactStore(str(tmp_path)), fcntl.flock

    def flock_after_the_deletion(handle: TextIO, how: int) -> None:
        (tmp_path / "tiny/.lock").unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_deletion)
    with pytest.raises(Conflict, match="just been deleted"), run_lock(store, "tiny"):
        pass
    monkeypatch.undo()
    with run_lock(store, "tiny"):
        assert (tmp_path / "tiny/.lock").exists()


def test_rm_does_nothing_when_the_question_is_answered_with_no(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert seal(*RUN) == 0
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert seal("rm", "tiny") == 130
    assert "stopped: nothing was done" in capsys.readouterr().err
    assert (here / "seal-runs/tiny/run.json").exists()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert seal("rm", "tiny") == 0
    assert not (here / "seal-runs/tiny").exists()


# Settings


def test_config_show_prints_a_manifest_that_runs_with_all_fields(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("config", "show", "published") == 0
    text = capsys.readouterr().out
    (here / "shown.yaml").write_text(text)
    assert load_run(here / "shown.yaml").spec == load_run(None, {"profile": "published"}).spec
    assert "# Rank r. (1 to 1024)" in text
    assert "# device: cuda" in text
    assert max(map(len, text.splitlines())) <= 100


def test_config_show_lists_every_field_as_json(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("config", "show", "-o", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    fields = {row["field"]: row for row in (*shown["spec"], *shown["engine"])}
    assert fields["spec.edit.k"]["value"] == 2
    assert fields["spec.edit.k"]["bounds"] == "1 to 1024"
    assert fields["spec.inner.optimizer.schedule"]["bounds"] == "one of linear, cosine, constant"
    assert fields["evaluationRows"]["value"] == 96
    assert all(row["description"].endswith(".") for row in fields.values())
    assert seal("config", "show", "large") == 2
    assert "embedded, published" in capsys.readouterr().err


ADAPTER = f"adapters/{'a' * 64}"
LOOKING = [
    ("list",),
    ("status", "x"),
    ("report", "x"),
    ("logs", "x"),
    ("rm", "x", "--yes"),
    ("get", "x"),
    ("watch", "x"),
    ("cancel", "x"),
    ("delete", "x", "--yes"),
    ("export", "x", "new"),
    ("export", ADAPTER, "new"),
    ("chat", "--adapter", "x", "-m", "Who?"),
    ("chat", "--adapter", ADAPTER, "-m", "Who?"),
]
"""What looks for something in a root."""


@pytest.mark.parametrize("command", LOOKING)
def test_a_root_that_is_not_there_is_named(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    def refused(*root: str) -> str:
        assert seal(*command, *root, "--output", "json") == 2
        said = capsys.readouterr()
        assert json.loads(said.out)["error"]["field"] == "--root"
        return said.err

    (here / "note").write_text("a file")
    for root in ("seal-rums", "note"):
        assert str(here / root) in refused("--root", root)
    assert "--root is empty" in refused("--root", "")
    monkeypatch.setenv("SEAL_ROOT", "seal-rums")
    assert "SEAL_ROOT" in refused()
    assert not (here / "seal-rums").exists()


def test_an_empty_root_and_the_usual_one_before_its_first_run_hold_no_runs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    for root in (("--root", "empty"), ()):
        assert seal("list", *root) == 0
        assert "There are no runs in" in capsys.readouterr().out
        assert seal("list", *root, "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == []
        assert seal("status", "x", *root) == 2
        assert "there are no runs yet" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("run", "tiny.yaml"), ("demo",), ("adapt", "train.jsonl")])
def test_nothing_begins_in_an_empty_root(
    here: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert seal(*command, "--root", "", "-o", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == "--root" and "variable of the shell" in error["remedy"]
