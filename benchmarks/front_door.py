"""P10: many clients at the front door at once against one after another.

Every client hands in one passage of the embedded corpus with its questions, through the client
library and gRPC, and waits for its evaluated adapter: edits, inner loops, the joint adapter, that
of the passage alone, all answers, the gate. *together*: `front_door_clients` of them at once.
*one after another*: `front_door_alone` of the same passages, each once the one before has ended;
within an adaptation its inner loops still run together. Seconds per adaptation are compared. Both
sides are served by one process with 16 slots; every adaptation of every round has seeds and a
request id of its own, so that nothing is found done.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.common import Setting, Timing, make_figure, ratios
from benchmarks.figures import Figures, Side
from controller_svc.api.serve import serve
from controller_svc.local.adaptations import AdaptationSettings
from seal.client import AsyncClient, Document, Options, Question, State
from seal.datasets import load_contexts
from seal.domains.base import Context
from seal.engine.precision import dtype_name
from seal.errors import Internal
from seal.settings import EngineSettings

KEYS = ("P10",)
SLOTS = 16
TOGETHER, ALONE = "together", "one after another"
WAIT_SECONDS = 3600.0


def measure(setting: Setting, wanted: Collection[str]) -> Figures:
    """Run both sides in turn on one server."""
    sizes = setting.sizes
    contexts = load_contexts("corpus://train", limit=sizes.front_door_clients)
    with tempfile.TemporaryDirectory(prefix="seal-") as root:
        timings = asyncio.run(_measure(setting, contexts, Path(root)))
    figure = make_figure(
        setting,
        "P10",
        ratios(timings[ALONE], timings[TOGETHER]),
        sides=tuple(
            Side(name=name, unit="s per adaptation", samples=tuple(t.each for t in timings[name]))
            for name in (ALONE, TOGETHER)
        ),
        details={"clients at once": str(len(contexts)), "slots": str(SLOTS)},
        sizes=("front_door_samples", "front_door_clients", "front_door_alone"),
    )
    return {"P10": figure}


async def _measure(
    setting: Setting, contexts: Sequence[Context], root: Path
) -> dict[str, tuple[Timing, ...]]:
    """Rounds in turn forwards and backwards, after one adaptation that is not counted."""
    sizes = setting.sizes
    timings: dict[str, list[Timing]] = {TOGETHER: [], ALONE: []}
    async with (
        serve(
            setting.model,
            root=root,
            engine=EngineSettings.model_validate(
                {"slots": SLOTS, "dtype": dtype_name(setting.dtype)}
            ),
            address=f"unix:{root}/front.sock",
            adaptations=AdaptationSettings(max_running=len(contexts)),
        ) as address,
        AsyncClient(address) as client,
    ):
        await _adapt(client, contexts[0], side="warm-up", seed=0)
        for number in range(sizes.front_door_samples):
            for name in list(timings) if number % 2 == 0 else list(timings)[::-1]:
                done = sum(map(len, timings.values()))
                setting.report("P10 front door", done, 2 * sizes.front_door_samples)
                chosen = contexts if name == TOGETHER else contexts[: sizes.front_door_alone]
                started = time.perf_counter()
                if name == TOGETHER:
                    await asyncio.gather(
                        *(_adapt(client, one, side="together", seed=number + 1) for one in chosen)
                    )
                else:
                    for one in chosen:
                        await _adapt(client, one, side="alone", seed=number + 1)
                timings[name].append(Timing(time.perf_counter() - started, len(chosen)))
    setting.report("P10 front door", 2 * sizes.front_door_samples, 2 * sizes.front_door_samples)
    return {name: tuple(each) for name, each in timings.items()}


async def _adapt(client: AsyncClient, context: Context, *, side: str, seed: int) -> None:
    """One client from its passage to the evaluated adapter, whatever the gate says of it."""
    submitted = await client.submit(
        [Document(name=f"{context.title}.txt", content=context.text.encode())],
        questions=[
            Question(question=query.question, answers=query.answers) for query in context.queries
        ],
        request_id=f"{side}-{seed}-{context.context_id}",
        options=Options(seed=seed),
    )
    ended = await client.wait(submitted.adaptation.name, timeout_seconds=WAIT_SECONDS)
    if ended.state not in (State.PUBLISHED, State.REFUSED) or ended.evaluation is None:
        raise Internal(f"the adaptation of {context.title!r} ended as {ended.state}")
