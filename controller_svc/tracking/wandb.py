"""Weights & Biases: a run of the project, by its id.

Each telling is a session of its own that takes up the run: once it has ended, all has arrived, or
lies in the files of an offline session (WANDB_MODE=offline), which `wandb sync` brings together.
A step is a round, and a step that the run has is not logged again.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import wandb
from wandb.errors import AuthenticationError, CommError, UsageError

from controller_svc.core import Phase
from controller_svc.tracking.faults import cause_of, without_secrets
from controller_svc.tracking.model import TrackedEnd, TrackedRun
from seal.errors import InvalidInput, PreconditionFailed, Transient

if TYPE_CHECKING:
    from wandb import Run

URL_VARIABLE, DEFAULT_URL = "WANDB_BASE_URL", "https://api.wandb.ai"
OFFLINE = ("offline", "dryrun")
CREDENTIALS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
START_SECONDS, ROUND_SECONDS, END_SECONDS = 30.0, 60.0, 900.0
"""How long a session may take to begin, to hand over numbers, and to hand over files."""
ARTIFACT_TYPES = {"report": "report", "policy": "model"}
MAX_TAG_CHARACTERS = 64


class WandbSink:
    """W&B's server, or a directory of offline sessions."""

    def __init__(self) -> None:
        """Raises PreconditionFailed if it would have to ask for a key, as nobody could answer."""
        self._url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
        self._offline = os.environ.get("WANDB_MODE", "") in OFFLINE
        self._directory = os.environ.get("WANDB_DIR") or "."
        if not self._offline and not _has_credentials(self._url):
            raise PreconditionFailed(
                "there is no key for W&B",
                remedy="set WANDB_API_KEY, or WANDB_MODE=offline",
            )

    @property
    def place(self) -> str:
        """The server's address, or the directory."""
        return f"offline:{self._directory}" if self._offline else without_secrets(self._url)

    def write(self, run: TrackedRun) -> None:
        """One session."""
        with self._errors():
            session = self._begin(run)
            code = 0 if run.end is None or run.end.phase is Phase.COMPLETE else 1
            try:
                for one in run.rounds:
                    if one.round >= session.starting_step:
                        session.log({**one.metrics, "round": one.round}, step=one.round)
                if run.end is not None:
                    _hand_over(session, run, run.end)
            finally:
                session.finish(exit_code=code)

    def _begin(self, run: TrackedRun) -> Run:
        """Quietly: what is printed, and the machine's own numbers, are no part of the run."""
        settings: dict[str, Any] = {
            "mode": "offline" if self._offline else "online",
            "base_url": self._url,
            "silent": True,
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
            "x_update_finish_state": run.end is not None,
            "init_timeout": START_SECONDS,
            "finish_timeout": END_SECONDS if run.end is not None else ROUND_SECONDS,
            "finish_timeout_raises": True,
        }
        tags = [run.tags.get(f"seal.{name}", "") for name in ("model", "profile", "remark")]
        return wandb.init(
            project=run.experiment,
            id=run.uid,
            name=run.name,
            config={**run.parameters, **run.tags},
            tags=[tag[:MAX_TAG_CHARACTERS] for tag in ("seal", *tags) if tag],
            notes=run.end.summary if run.end is not None else None,
            dir=self._directory,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (AuthenticationError, UsageError) as error:
            raise InvalidInput(
                f"W&B at {self.place} refuses it: {cause_of(error)}",
                remedy="check WANDB_API_KEY, WANDB_ENTITY and WANDB_BASE_URL",
            ) from error
        except (CommError, TimeoutError, OSError) as error:
            raise Transient(f"W&B at {self.place} is away: {cause_of(error)}") from error


def _hand_over(session: Run, run: TrackedRun, end: TrackedEnd) -> None:
    """The files, as artifacts of the run: the same content again makes no new version."""
    session.summary["phase"] = str(end.phase)
    for name, directory in end.directories.items():
        artifact = wandb.Artifact(f"{run.name}-{name}", type=ARTIFACT_TYPES[name])
        for file in sorted(directory.iterdir()):
            artifact.add_file(str(file), name=file.name)
        session.log_artifact(artifact)


def _has_credentials(url: str) -> bool:
    """Whether a session would not have to ask."""
    if any(os.environ.get(name) for name in CREDENTIALS):
        return True
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators(urlsplit(url).hostname or "") is not None
    return False
