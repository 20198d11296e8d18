"""Models that others serve, asked over HTTP: the only room that knows the `openai` client."""

from seal.endpoints.client import Endpoint, Sampling
from seal.endpoints.keys import KEY_VARIABLE, read_key
from seal.endpoints.replies import Completion
from seal.endpoints.shared import Shared

__all__ = ["KEY_VARIABLE", "Completion", "Endpoint", "Sampling", "Shared", "read_key"]
