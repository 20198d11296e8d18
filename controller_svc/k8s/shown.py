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
    """What the object shows, and what has been counted since."""

    def __init__(self, wanted: Wanted, *, api: ClusterApi, places: int) -> None:
        """`places`: shards of a stage at work at once."""
        self._wanted, self._api, self._body = wanted, api, wanted.body
        self._places = places
        self.newest = wanted.status
        """All that is decided in it is in the object; what is counted may not be yet."""
        self.written = wanted.shown
        """What the object shows; None if nothing yet."""
        self.publication = self.written.publication if self.written is not None else None

    def decides(self, status: RunStatus) -> bool:
        """Whether a newer status decides something, and is to be written at once."""
        return self.written is None or not _only_counts(self.newest, status)

    def count(self, status: RunStatus) -> None:
        """Note a newer status that decides nothing."""
        self.newest = status

    def may_count(self, now_seconds: float) -> bool:
        """Whether it is worth counting how far it is."""
        return self._age_seconds(now_seconds) >= LEAST_SECONDS

    async def write_count(self, stage: StageProgress, now_seconds: float) -> None:
        """Write how far it is, unless that says nothing new."""
        progress = self._progress(self.newest, stage, now_seconds)
        same = progress.percent == self._before.percent
        if not same or self._age_seconds(now_seconds) >= MOST_SECONDS:
            await self._replace(self.newest, progress)

    async def write(self, status: RunStatus, now_seconds: float) -> None:
        """Write a status, if it differs from what the object shows; once it is, it is the newest.

        `publication` is written with it.
        """
        moved = self.written is None or _where(self.written) != _where(status)
        progress = self._progress(status, StageProgress(), now_seconds) if moved else self._before
        await self._replace(status, progress)
        self.newest = status

    async def _replace(self, status: RunStatus, progress: ObjectProgress) -> None:
        shown: Tree = to_object(
            status,
            generation=generation_of(self._body),
            progress=progress,
            columns=columns_of(self._wanted.manifest.spec, status),
            publication=self.publication,
        )
        if self.written == ObjectStatus.model_validate(shown):
            return
        self._body = await write_status(
            self._api,
            self._wanted.kind,
            self._wanted.owner.namespace,
            self._body | {"status": shown},
        )
        self.written = shown_of(self._body)

    def _progress(
        self, status: RunStatus, stage: StageProgress, now_seconds: float
    ) -> ObjectProgress:
        return progress_of(
            self._wanted.manifest.spec,
            status,
            stage,
            before=self._before,
            places=self._places,
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
