"""What KServe says of a service in its status: pure, from the object to an observation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from controller_svc.k8s.looking import ConditionSeen

READY = "Ready"


class _Seen(BaseModel):
    """Base of what is read of a service; the rest of it is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class _Metadata(_Seen):
    generation: int = 0
    deletion_timestamp: str | None = None


class _Address(_Seen):
    url: str = ""


class _Failure(_Seen):
    reason: str = ""
    message: str = ""


class _ModelStatus(_Seen):
    last_failure_info: _Failure | None = None


class _Status(_Seen):
    observed_generation: int | None = None
    conditions: tuple[ConditionSeen, ...] = ()
    url: str = ""
    address: _Address = _Address()
    addresses: tuple[_Address, ...] = ()
    model_status: _ModelStatus = _ModelStatus()


class ServiceSeen(_Seen):
    """An InferenceService or an LLMInferenceService."""

    metadata: _Metadata
    status: _Status = _Status()

    @property
    def ready(self) -> bool:
        """Whether KServe calls it ready for the spec that it has now."""
        if self.metadata.deletion_timestamp is not None:
            return False
        observed = self.status.observed_generation
        current = observed is None or observed >= self.metadata.generation
        condition = self._condition
        return current and condition is not None and condition.status == "True"

    @property
    def why_not(self) -> str:
        """Why it is not ready, for people."""
        if self.metadata.deletion_timestamp is not None:
            return "the service is being deleted"
        failure = self.status.model_status.last_failure_info
        if failure is not None and failure.message:
            return f"{failure.reason}: {failure.message}"
        condition = self._condition
        if condition is None:
            return "KServe has not said anything of the service yet"
        if condition.status == "True":
            return "KServe has not looked at the service since it was changed"
        return ": ".join(part for part in (condition.reason, condition.message) if part) or READY

    @property
    def urls(self) -> tuple[str, ...]:
        """Where its server can be asked, each once; those within the cluster first."""
        status = self.status
        found = (status.address.url, *(address.url for address in status.addresses), status.url)
        return tuple(dict.fromkeys(url for url in found if url))

    @property
    def _condition(self) -> ConditionSeen | None:
        return next((one for one in self.status.conditions if one.type == READY), None)
