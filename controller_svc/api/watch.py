"""What a watcher is told: every event after the one that it knows, and progress in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from controller_svc.adaptations import Progress, View
from controller_svc.api.convert import event_message, progress_event
from seal.rpc.validation import refuse
from seal.v1 import adaptation_pb2


async def told(
    views: AsyncIterator[View], *, after_sequence: int
) -> AsyncGenerator[adaptation_pb2.AdaptationEvent, None]:
    """The events of an adaptation as it goes on; the last is that of its end.

    Events are numbered by what happened alone, so that a watch goes on from any of them, on any
    server. Progress carries the number of the last event before it, and is not kept.

    Raises:
        InvalidInput: there is no such event yet: the watch is one of another adaptation.
        SealError: what `views` raises.

    """
    told_until, shown = after_sequence, (Progress(), "")
    is_first = True
    async for view in views:
        if is_first and after_sequence > len(view.events):
            raise refuse(
                "after_sequence",
                f"{after_sequence} is more than the {len(view.events)} events that there are",
                "give the number of an event of this very adaptation, or 0 for all",
            )
        is_first = False
        for event in view.events[told_until:]:
            yield event_message(event)
        told_until = max(told_until, len(view.events))
        if view.state.final:
            return  # what is swept up after it is nothing to wait for
        if (view.progress, view.waiting) != shown:
            shown = view.progress, view.waiting
            yield progress_event(view)
