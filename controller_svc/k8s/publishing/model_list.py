"""The models that a server lists, as vLLM and KServe's own server say it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import aiohttp

from seal.errors import Transient

PATHS = ("/v1/models", "/openai/v1/models")
"""vLLM answers the first as OpenAI does. KServe's server answers it with all names, and the second
as OpenAI does but without those of adapters."""
TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 1 << 20
_FOUND = 200


async def served_models(url: str) -> frozenset[str]:
    """Names that the server at a URL lists.

    Raises:
        Transient: nothing there answers with a list.

    """
    if not url.startswith(("http://", "https://")):
        raise Transient(f"{url[:200]!r} is no address of a server")
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        asked = (_listed(session, url.rstrip("/") + path) for path in PATHS)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    lists = [answer for answer in answers if isinstance(answer, frozenset)]
    if not lists:
        raise Transient(f"{url}: no list of models: {answers[0]}")
    return frozenset().union(*lists)


async def _listed(session: aiohttp.ClientSession, url: str) -> frozenset[str]:
    try:
        async with session.get(url, allow_redirects=False) as reply:
            if reply.status != _FOUND:
                raise Transient(f"{url}: status {reply.status}")
            text = await reply.content.read(_MAX_BYTES)
        return frozenset(_names(json.loads(text)))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Transient(f"{url}: {type(error).__name__}: {error}") from error


def _names(reply: object) -> Iterator[str]:
    """Names in `{"data": [{"id": name}]}` or in `{"models": [name]}`."""
    if not isinstance(reply, dict):
        raise ValueError("the reply is no object of JSON")
    data, models = reply.get("data"), reply.get("models")
    for model in data if isinstance(data, list) else ():
        if isinstance(model, dict) and isinstance(model.get("id"), str):
            yield model["id"]
    for name in models if isinstance(models, list) else ():
        if isinstance(name, str):
            yield name
