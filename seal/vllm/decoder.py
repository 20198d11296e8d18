"""AsyncLLM as a `Decoder`: the only module that imports vllm.

Its API server and its administration over HTTP are not used: each text carries the LoRA that it
needs. Importing this module takes seconds, so only who starts vLLM does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict

import vllm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.vllm.adapters import PlacedAdapter
from seal.vllm.asks import Ask, DecoderDeadError, Told
from seal.vllm.launch import VllmArguments, check_version, device_type

TOKENS_AT_ONCE = 8
"""Tokens of a text between two signs of life."""
FORGET_TRIES, FORGET_SECONDS = 50, 0.1
"""How often the cache is asked to be emptied, and the pause between."""
CLOSE_SECONDS = 10.0
"""How long the workers may take to end."""


class VllmDecoder:
    """One AsyncLLM; belongs to the event loop on which it was made."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._loaded: set[int] = set()
        self._numbers = itertools.count()

    async def load(self, adapter: PlacedAdapter) -> None:
        """Load an adapter. Raises UnfitItem for one that vLLM does not take."""
        if adapter.number in self._loaded:
            return  # or pushed out since: a worker loads it again from the path
        try:
            await self._llm.add_lora(lora_request(adapter))
        except EngineDeadError as error:
            raise DecoderDeadError(str(error)) from error
        except Exception as error:  # a worker's own, of any class
            if self._llm.errored:
                raise DecoderDeadError(str(error)) from error
            raise UnfitItem(
                f"vLLM cannot load the adapter: {_first_line(error)}",
                outcome=Outcome.REFUSED,
                field="adapter",
                remedy="see the server's log, or use the engine backend",
            ) from error
        self._loaded.add(adapter.number)

    async def tell(self, ask: Ask, on_tokens: Callable[[Sequence[int]], None]) -> Told:
        """Write or score one text."""
        outputs = self._llm.generate(
            TokensPrompt(prompt_token_ids=list(ask.prompt)),
            sampling(ask),
            f"seal-{next(self._numbers)}",
            lora_request=None if ask.adapter is None else lora_request(ask.adapter),
        )
        told = _Parts(ask)
        try:
            async for output in outputs:
                on_tokens(told.add(output))
        except EngineDeadError as error:
            raise DecoderDeadError(str(error)) from error
        except (VLLMClientError, ValueError) as error:
            raise _refused(ask, error) from error
        return told.whole()

    async def forget(self) -> None:
        """Empty the cache of keys and values, and what is known to be in it."""
        for _ in range(FORGET_TRIES):
            if await self._llm.reset_prefix_cache():  # False while a dropped text has pages yet
                await self._llm.collective_rpc("forget_keys_and_values")
                return
            await asyncio.sleep(FORGET_SECONDS)
        raise DecoderDeadError("its cache of keys and values cannot be emptied")

    def close(self) -> None:
        """End the workers."""
        self._llm.shutdown(timeout=CLOSE_SECONDS)


async def start(arguments: VllmArguments, *, device: str) -> VllmDecoder:
    """Start vLLM, which loads the model: a minute or more.

    Raises InvalidInput for a vLLM that is too old, or was built for another device.
    """
    built_for = current_platform.device_type
    check_version(vllm.__version__, device=built_for)
    if device_type(device) != built_for:
        raise InvalidInput(
            f"vLLM was built for {built_for}, the engine's device is {device!r}",
            field="engine.device",
            remedy=f"use --device {built_for}, or install the vLLM for {device_type(device)}",
        )
    given = asdict(arguments) | {"lora_target_modules": list(arguments.lora_target_modules)}
    try:
        return VllmDecoder(AsyncLLM.from_engine_args(AsyncEngineArgs(**given)))
    except ValueError as error:
        raise InvalidInput(
            f"vLLM does not start: {_first_line(error)}",
            field="model",
            remedy="see the lines before; --vllm-cache-bytes and --vllm-context-tokens are what "
            "most often does not fit",
        ) from error


def lora_request(adapter: PlacedAdapter) -> LoRARequest:
    """An adapter as vLLM is told of it.

    Never with load_inplace: with it a worker reads the file again in every step.
    """
    return LoRARequest(
        lora_name=adapter.name, lora_int_id=adapter.number, lora_path=str(adapter.path)
    )


def sampling(ask: Ask) -> SamplingParams:
    """How an ask is decoded."""
    schema = StructuredOutputsParams(json=ask.json_schema) if ask.json_schema else None
    return SamplingParams(
        temperature=ask.temperature,
        top_p=ask.top_p if ask.temperature else 1.0,
        seed=ask.seed,
        max_tokens=ask.max_tokens,
        stop=list(ask.stop),
        stop_token_ids=list(ask.stop_tokens),
        logprobs=0,  # of the chosen token alone
        prompt_logprobs=0 if ask.scores else None,
        # a prompt that is found in the prefix cache is not computed, and has no log-probabilities
        skip_reading_prefix_cache=ask.scores,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=1 if ask.streams else TOKENS_AT_ONCE,
        structured_outputs=schema,
    )


class _Parts:
    """The parts of one answer, put together."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._prompt_logprobs: list[float] = []
        self._stopped = False

    def add(self, output: RequestOutput) -> list[int]:
        """Put a part in; the tokens that it brings."""
        prompt = self._ask.prompt
        for entry in output.prompt_logprobs or ():
            if entry is not None:  # the first token has nothing before it
                token = prompt[len(self._prompt_logprobs) + 1]
                self._prompt_logprobs.append(float(entry[token].logprob))
        if not output.outputs:
            return []
        part = output.outputs[0]
        new = list(part.token_ids)
        for token, entry in zip(new, part.logprobs or (), strict=True):
            self._logprobs.append(float(entry[token].logprob))
        self._tokens += new
        self._stopped = part.finish_reason == "stop"
        return new

    def whole(self) -> Told:
        """All of it."""
        return Told(
            tuple(self._tokens),
            tuple(self._logprobs),
            self._stopped,
            tuple(self._prompt_logprobs),
        )


def _refused(ask: Ask, error: Exception) -> InvalidInput:
    """What vLLM refuses at its door: a schema, or something that was not known before."""
    if ask.json_schema:
        return InvalidInput(
            f"vLLM cannot write by this JSON schema: {_first_line(error)}",
            field="json_schema",
            remedy="use plain types, properties, required, enum and items",
        )
    return InvalidInput(
        f"vLLM refuses the request: {_first_line(error)}", remedy="see the server's log"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
