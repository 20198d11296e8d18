"""Models that others serve, asked over HTTP: the only room that knows the `openai` client."""

from seal.endpoints.client import Endpoint, Sampling
from seal.endpoints.replies import Completion
from seal.endpoints.shared import Shared

__all__ = ["Completion", "Endpoint", "Sampling", "Shared"]
