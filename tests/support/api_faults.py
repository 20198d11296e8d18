"""Every way in which an API server fails a request, as the controller's client tells it."""

from __future__ import annotations

from dataclasses import dataclass

from controller_svc.k8s.api import TIMEOUT_SECONDS, api_error
from seal.errors import SealError, Transient

QUOTA = '{"message": "exceeded quota: small"}'


@dataclass(frozen=True)
class ApiFault:
    """One way to fail."""

    name: str
    status: int = 0
    """Of the reply; 0 for none."""
    body: str = ""
    retry_after: str = ""
    moment: str = "before"
    """`after`: what was asked has been done."""
    seconds: float = 0.0
    """That it takes."""

    def error(self, request: str) -> SealError:
        """As `KubernetesApi` tells it."""
        if self.status:
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return api_error(self.status, self.body, headers, request)
        return Transient(f"{request}: {self.name}")


API_FAULTS = (
    ApiFault("unauthorised", status=401),
    ApiFault("forbidden", status=403),
    ApiFault("quota", status=403, body=QUOTA),
    ApiFault("conflict", status=409),
    ApiFault("gone", status=410),
    ApiFault("unprocessable", status=422),
    ApiFault("too many", status=429, retry_after="1"),
    ApiFault("error", status=500),
    ApiFault("error after all", status=500, moment="after"),
    ApiFault("unavailable", status=503, retry_after="5"),
    ApiFault("timeout of a proxy", status=504),
    ApiFault("timeout of a proxy after all", status=504, moment="after"),
    ApiFault("reset"),
    ApiFault("lost reply", moment="after"),
    ApiFault("hang", seconds=TIMEOUT_SECONDS),
    ApiFault("hang after all", moment="after", seconds=TIMEOUT_SECONDS),
)
