"""The conditions of a run's status, as Kubernetes has them."""

from __future__ import annotations

from controller_svc.core.state import Condition, RunStatus

MAX_MESSAGE_BYTES = 1024


def set_condition(
    status: RunStatus, type: str, value: str, reason: str, message: str, now_seconds: float
) -> RunStatus:
    """The status with one condition set; its transition time moves only if its value does."""
    old = status.condition(type)
    since = old.last_transition_seconds if old is not None and old.status == value else now_seconds
    new = Condition.model_validate(
        {
            "type": type,
            "status": value,
            "reason": str(reason),
            "message": cut(message),
            "last_transition_seconds": since,
        }
    )
    others = tuple(condition for condition in status.conditions if condition.type != type)
    return status.model_copy(
        update={"conditions": tuple(sorted((*others, new), key=lambda condition: condition.type))}
    )


def cut(message: str, limit: int = MAX_MESSAGE_BYTES) -> str:
    """At most so many bytes of a message, cut on a character."""
    return message.encode()[:limit].decode(errors="ignore")
