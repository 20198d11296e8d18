"""MLflow: a run of the tracking server that MLFLOW_TRACKING_URI names.

Our run is the one with its uid among the tags, so that whoever goes on with it finds it. A number
is logged unless its history has the round; parameters that a resume changed stand as tags beside
those of the start, as MLflow lets none be changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from controller_svc.core import Phase
from controller_svc.tracking.faults import cause_of, without_secrets
from controller_svc.tracking.model import TrackedEnd, TrackedRun
from seal.errors import InvalidInput, PreconditionFailed, Transient

if TYPE_CHECKING:
    from mlflow.entities import Run

URI_VARIABLE = "MLFLOW_TRACKING_URI"
UID_TAG, NAME_TAG, NOTE_TAG = "seal.uid", "mlflow.runName", "mlflow.note.content"
RESUMED_TAG = "seal.resumed."
"""Before the name of a parameter that a resume changed."""
MAX_PARAM_CHARACTERS, MAX_TAG_CHARACTERS = 6000, 5000
PARAMS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
"""What a server takes in one request."""
PATIENCE: Mapping[str, str] = MappingProxyType(
    {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
)
"""Unless the environment says otherwise: we try again ourselves, with the next stage."""
STATUSES: Mapping[Phase, str] = MappingProxyType(
    {Phase.COMPLETE: "FINISHED", Phase.FAILED: "FAILED", Phase.CANCELLED: "KILLED"}
)

T = TypeVar("T")


class MlflowSink:
    """A tracking server."""

    def __init__(self) -> None:
        """Raises PreconditionFailed if the environment names none."""
        uri = os.environ.get(URI_VARIABLE, "")
        if not uri:
            raise PreconditionFailed(
                f"{URI_VARIABLE} is not set",
                remedy="set it to the address of the tracking server, as http://mlflow:5000",
            )
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self._place = without_secrets(uri)
        with self._errors():
            self._client = MlflowClient(tracking_uri=uri)

    @property
    def place(self) -> str:
        """The server's address."""
        return self._place

    def write(self, run: TrackedRun) -> None:
        """Find or make the run; log what it has not."""
        with self._errors():
            experiment = self._experiment(run.experiment)
            found = self._find(run, experiment) or self._make(run, experiment)
            self._log_parameters(found, run)
            self._log_rounds(found, run)
            if run.end is not None:
                self._end(found.info.run_id, run.end)
            elif found.info.status != "RUNNING":
                self._client.update_run(found.info.run_id, status="RUNNING")

    def _experiment(self, name: str) -> str:
        """Its id; of two who make it at once one does."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise InvalidInput(
                f"MLflow's experiment {name!r} is deleted",
                field="spec.tracking.experiment",
                remedy="restore it, or name another one",
            )
        return str(found.experiment_id)

    def _find(self, run: TrackedRun, experiment: str) -> Run | None:
        found = self._client.search_runs(
            [experiment],
            filter_string=f"tags.`{UID_TAG}` = '{run.uid}'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        return found[0] if found else None

    def _make(self, run: TrackedRun, experiment: str) -> Run:
        tags = {UID_TAG: run.uid, NAME_TAG: run.name, **run.tags, "mlflow.source.name": "seal"}
        return self._client.create_run(
            experiment,
            start_time=_milliseconds(run.started_seconds),
            tags={name: value[:MAX_TAG_CHARACTERS] for name, value in tags.items()},
            run_name=run.name,
        )

    def _log_parameters(self, found: Run, run: TrackedRun) -> None:
        known = found.data.params
        given = {name: value[:MAX_PARAM_CHARACTERS] for name, value in run.parameters.items()}
        new = [Param(name, value) for name, value in given.items() if name not in known]
        for some in _batches(new, PARAMS_AT_ONCE):
            self._client.log_batch(found.info.run_id, params=some)
        changed = {name: value for name, value in given.items() if known.get(name, value) != value}
        if changed:
            tags = [RunTag(f"{RESUMED_TAG}{name}", value) for name, value in changed.items()]
            self._client.log_batch(found.info.run_id, tags=tags)

    def _log_rounds(self, found: Run, run: TrackedRun) -> None:
        """What was logged by one who died before he could say so is not logged again."""
        run_id, names = found.info.run_id, {name for one in run.rounds for name in one.metrics}
        there = {
            (name, metric.step)
            for name in names & found.data.metrics.keys()
            for metric in self._client.get_metric_history(run_id, name)
        }
        new = [
            Metric(name, float(value), _milliseconds(one.time_seconds), one.round)
            for one in run.rounds
            for name, value in one.metrics.items()
            if (name, one.round) not in there
        ]
        for some in _batches(new, METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=some)

    def _end(self, run_id: str, end: TrackedEnd) -> None:
        """The files first: a run that is called finished has all of them."""
        for name, directory in end.directories.items():
            self._client.log_artifacts(run_id, str(directory), name)
        self._client.set_tag(run_id, NOTE_TAG, end.summary[:MAX_TAG_CHARACTERS])
        self._client.set_terminated(
            run_id, STATUSES[end.phase], end_time=_milliseconds(end.time_seconds)
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Whoever refuses for good is told apart from one who is away."""
        try:
            yield
        except (MlflowException, OSError) as error:
            status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
            where = f"MLflow at {self._place}"
            if status in (400, 401, 403, 404):
                raise InvalidInput(
                    f"{where} refuses it: {cause_of(error)}",
                    remedy="check the address and the credentials (MLFLOW_TRACKING_TOKEN, or "
                    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)",
                ) from error
            raise Transient(f"{where} is away: {cause_of(error)}") from error


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
