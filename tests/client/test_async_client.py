"""The client for asyncio does what the blocking one does, beside other work of its loop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from eventually import until
from fake_adaptations import ADAPTER_SHA256, FILES, FakeAdaptations, serve

from seal.client import Advanced, AsyncClient, ClientOptions, Document, State
from seal.errors import Internal, InvalidInput, NotFound, SealError, Transient
from seal.records import AdapterReference
from seal.rpc.client import ClientSettings

NOTE = Document(name="note.md", content=b"The lighthouse of Veldra was built by Ama Torrin.")
QUICK = ClientOptions(retry_seconds=5.0, reconnect_seconds=10.0)
ADAPTER = AdapterReference(path=f"adapters/{ADAPTER_SHA256}", sha256=ADAPTER_SHA256)


async def test_many_adaptations_are_watched_at_once_over_lost_connections() -> None:
    fake = FakeAdaptations(delay_seconds=0.02, drops=[0, 3, 1, 2, 0, 4])
    async with serve(fake) as address, AsyncClient(address, options=QUICK) as client:

        async def adapt(name: str) -> list[int]:
            submission = await client.submit([NOTE], name=name)
            async with aclosing(client.watch(submission.adaptation.name)) as events:
                return [
                    event.sequence async for event in events if not isinstance(event.what, Advanced)
                ]

        told = await asyncio.gather(*(adapt(f"n-{index}") for index in range(6)))
        assert told == [[1, 2, 3, 4, 5, 6, 7]] * 6
        assert [one.state async for one in client.list(name_prefix="n-")] == [State.PUBLISHED] * 6


async def test_who_knows_the_last_event_hears_at_once_that_nothing_comes_after_it() -> None:
    async with serve(FakeAdaptations()) as address, AsyncClient(address, options=QUICK) as client:
        await client.submit([NOTE], name="veldra")
        last = (await client.wait("veldra", timeout_seconds=20)).sequence
        assert [event async for event in client.watch("veldra", after=last)] == []
        assert (await client.wait("veldra", after=last)).state is State.PUBLISHED


async def test_lost_answers_are_asked_for_again_with_the_same_request_id() -> None:
    fake = FakeAdaptations()
    gone = NotFound("documents[0].file: there is no such file", field="documents[0].file.path")
    fake.refuse["SubmitAdaptation"] = [gone]
    fake.lose.update({"SubmitAdaptation": 1, "DeleteAdaptation": 1, "UploadDocument": 1})
    async with serve(fake) as address, AsyncClient(address, options=QUICK) as client:
        large = Document(name="large.txt", content=b"word " * 800_000)
        await client.submit([large], name="veldra")
        assert len(fake.jobs) == 1 and len(fake.uploads) == 1
        fake.stale_gets = 1
        assert (await client.wait("veldra", timeout_seconds=20)).state is State.PUBLISHED
        await client.delete("veldra")
        with pytest.raises(NotFound):
            await client.delete("veldra")


async def test_an_adapter_is_downloaded_whole(tmp_path: Path) -> None:
    async with serve(FakeAdaptations()) as address, AsyncClient(address, options=QUICK) as client:
        target = await client.download(ADAPTER, tmp_path / "adapter")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES


@pytest.mark.parametrize(("damaged", "said"), [(True, "did not come whole"), (False, "not those")])
async def test_a_download_of_other_bytes_than_the_adapters_leaves_nothing(
    damaged: bool, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not damaged:
        monkeypatch.setitem(FILES, "adapter_config.json", b"{}")
    fake = FakeAdaptations(damaged=damaged)
    async with serve(fake) as address, AsyncClient(address, options=QUICK) as client:
        with pytest.raises(Internal, match=said):
            await client.download(ADAPTER, tmp_path / "adapter")
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a look at an empty directory


async def test_a_watch_that_is_left_ends_its_call() -> None:
    fake = FakeAdaptations(delay_seconds=30)
    async with serve(fake) as address, AsyncClient(address, options=QUICK) as client:
        watch, opened = client._stub.WatchAdaptation, []

        def open_call(*given: object, **named: object) -> object:
            opened.append(watch(*given, **named))
            return opened[-1]

        # Kept here: what nobody holds any more, the collection of garbage ends as well
        client._stub.WatchAdaptation = open_call  # type: ignore[assignment]
        await client.submit([NOTE], name="veldra")
        async with aclosing(client.watch("veldra")) as events:
            await anext(events)
        await until(lambda: opened[0].done())
        assert len(opened) == 1 and opened[0].cancelled()


async def test_a_wait_ends_in_time_and_the_adaptation_goes_on() -> None:
    fake = FakeAdaptations(delay_seconds=0.3)
    options = ClientOptions(retry_seconds=60.0, reconnect_seconds=60.0)
    async with serve(fake) as address, AsyncClient(address, options=options) as client:
        await client.submit([NOTE], name="veldra")
        async with asyncio.timeout(20):
            with pytest.raises(Transient, match="has not ended in time"):
                await client.wait("veldra", timeout_seconds=0.4)
        assert (await client.wait("veldra")).state is State.PUBLISHED


async def test_a_server_that_starts_again_is_found_again() -> None:
    fake, errors = FakeAdaptations(delay_seconds=0.2), list[SealError]()
    options = ClientOptions(retry_seconds=0.05, reconnect_seconds=20, on_retry=errors.append)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        address = await first.enter_async_context(serve(fake))

        async def restart() -> None:
            await first.aclose()
            await asyncio.sleep(0.5)
            await stack.enter_async_context(serve(fake, address))

        client = await stack.enter_async_context(
            AsyncClient(address, options=options, channel=ClientSettings(connection_attempts=2))
        )
        await client.submit([NOTE], name="veldra")
        told, restarting = list[int](), None
        async with aclosing(client.watch("veldra")) as events:
            async for event in events:
                restarting = restarting or asyncio.create_task(restart())
                if not isinstance(event.what, Advanced):
                    told.append(event.sequence)
        assert restarting is not None
        await restarting
    assert told == [1, 2, 3, 4, 5, 6, 7]
    assert errors and all(isinstance(error, Transient) for error in errors)


async def test_what_is_wrong_is_refused_by_field() -> None:
    async with serve(FakeAdaptations()) as address, AsyncClient(address, options=QUICK) as client:
        with pytest.raises(InvalidInput) as refused:
            await client.submit([])
        assert refused.value.field == "documents"


async def test_a_wait_that_is_cancelled_ends_and_the_adaptation_goes_on() -> None:
    fake = FakeAdaptations(delay_seconds=0.3)
    async with serve(fake) as address, AsyncClient(address, options=QUICK) as client:
        await client.submit([NOTE], name="veldra")
        waiting = asyncio.create_task(client.wait("veldra"))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await client.cancel("veldra")).state is State.CANCELLED


async def test_a_server_that_is_not_there_is_said_soon(tmp_path: Path) -> None:
    async with AsyncClient(
        f"unix:{tmp_path}/none.sock",
        options=ClientOptions(retry_seconds=0.5),
        channel=ClientSettings(connection_attempts=2),
    ) as client:
        with pytest.raises(Transient, match="connect"):
            await client.get("veldra")
