"""The status subresource of one object in one turn of the controller, and how often it is written.

What is decided is written before anything is done for it. What is only counted (finished shards,
the share that is done, the time left) is for people, and written seldom.
"""

from __future__ import annotations

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.api import ClusterApi, write_status
from controller_svc.k8s.objects import ObjectProgress, ObjectStatus, shown_of, to_object
from controller_svc.k8s.progress import StageProgress, columns_of, progress_of
from controller_svc.k8s.wanted import Wanted, generation_of
from seal.yaml_files import Tree

LEAST_SECONDS = 10.0
"""Between two writes of what is only counted."""
MOST_SECONDS = 20.0
"""After so long it is written also if the share is the same, as the time left has changed."""


class ShownStatus:
    """What the object shows, and the newest status, which may not be written yet."""

    def __init__(self, wanted: Wanted, *, api: ClusterApi) -> None:
        self._wanted, self._api, self._body = wanted, api, wanted.body
        self.newest = wanted.status
        self.written = wanted.shown
        """What the object shows; None if nothing yet."""
        self.publication = self.written.publication if self.written is not None else None

    def take(self, status: RunStatus) -> bool:
        """Note a newer status; whether it decides something, and is to be written at once."""
        before, self.newest = self.newest, status
        return self.written is None or not _only_counts(before, status)

    def may_count(self, now_seconds: float) -> bool:
        """Whether it is worth counting how far it is."""
        return self._age_seconds(now_seconds) >= LEAST_SECONDS

    async def write_count(self, stage: StageProgress, now_seconds: float) -> None:
        """Write how far it is, unless that says nothing new."""
        progress = self._progress(stage, now_seconds)
        same = progress.percent == self._before.percent
        if not same or self._age_seconds(now_seconds) >= MOST_SECONDS:
            await self._replace(progress)

    async def write(self, now_seconds: float) -> None:
        """Write the newest status, if it differs from what the object shows."""
        moved = self.written is None or _where(self.written) != _where(self.newest)
        await self._replace(self._progress(StageProgress(), now_seconds) if moved else self._before)

    async def _replace(self, progress: ObjectProgress) -> None:
        status: Tree = to_object(
            self.newest,
            generation=generation_of(self._body),
            progress=progress,
            columns=columns_of(self._wanted.manifest.spec, self.newest),
            publication=self.publication,
        )
        if self.written == ObjectStatus.model_validate(status):
            return
        self._body = await write_status(
            self._api,
            self._wanted.kind,
            self._wanted.owner.namespace,
            self._body | {"status": status},
        )
        self.written = shown_of(self._body)

    def _progress(self, stage: StageProgress, now_seconds: float) -> ObjectProgress:
        return progress_of(
            self._wanted.manifest.spec,
            self.newest,
            stage,
            before=self._before,
            now_seconds=now_seconds,
        )

    @property
    def _before(self) -> ObjectProgress:
        written = self.written
        return written.progress if written is not None else ObjectProgress()

    def _age_seconds(self, now_seconds: float) -> float:
        """Since what is only counted was written; infinite of a time to come, by another clock."""
        last = self._before.last_update_time
        seconds = now_seconds - last.timestamp() if last is not None else -1.0
        return seconds if seconds >= 0 else float("inf")


def _where(status: RunStatus) -> tuple[object, ...]:
    return status.phase, status.round, status.stage


def _only_counts(before: RunStatus, after: RunStatus) -> bool:
    """Whether nothing but finished shards of a running stage were added."""
    if after.phase is not Phase.RUNNING or before.current is None or after.current is None:
        return before == after
    counted = after.current.model_copy(update={"completed": before.current.completed})
    return before == after.model_copy(update={"current": counted})
