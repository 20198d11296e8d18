"""What the engine does for one batch of generation or evaluation requests, given rows of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from seal.engine.bank import stack
from seal.engine.decoding import AdapterGroups, Decoder, DecodeSettings, Rows, decode
from seal.engine.model import FrozenModel
from seal.engine.requests import EvaluationRequest, EvaluationResult, GenerationRequest, GenerationResult, Sample
from seal.engine.text import encode


def never() -> bool:
    """For work that nobody can cancel."""
    return False


def generate(
    model: FrozenModel,
    request: GenerationRequest,
    *,
    max_rows: int,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = never,
) -> GenerationResult:
    """Sample every prompt's seeds, at most `max_rows` at once; a prompt's samples share its prefill."""
    decoder = Decoder(model, AdapterGroups({}, model.policy_factors(request.policy)), 1)
    settings = DecodeSettings(request.temperature, request.top_p, request.max_tokens, request.stop)
    prompts = [encode(model.tokenizer, prompt) for prompt in request.prompts]
    samples: list[tuple[Sample, ...]] = []
    seconds: list[float] = []
    tokens_before = 0
    for part in _parts([len(seeds) for seeds in request.seeds], max_rows):
        started = time.monotonic()
        done_before, base = sum(map(len, samples)), tokens_before
        report = None if on_progress is None else (lambda done, tokens, d=done_before, t=base: on_progress(d + done, t + tokens))
        prefilled = decoder.prefill([prompts[index] for index in part], [0] * len(part))
        copies = [place for place, index in enumerate(part) for _ in request.seeds[index]]
        seeds = [seed for index in part for seed in request.seeds[index]]
        writings = decode(decoder, _repeat(prefilled, copies), seeds, settings, report, cancelled)
        finished = [Sample(w.text, seed, len(w.tokens), not w.ended) for w, seed in zip(writings, seeds, strict=True)]
        share = (time.monotonic() - started) / len(part)
        offset = 0
        for index in part:
            samples.append(tuple(finished[offset : offset + len(request.seeds[index])]))
            offset += len(request.seeds[index])
            seconds.append(share)
        tokens_before += sum(sample.tokens for sample in finished)
    return GenerationResult(samples=tuple(samples), engine_seconds=tuple(seconds))


def evaluate(model: FrozenModel, requests: Sequence[EvaluationRequest], *, cancelled: Callable[[], bool] = never) -> list[EvaluationResult]:
    """Answer and score the queries of many adapters in one batch. All requests share policy, max_tokens and stop.

    Beside each request's rows, its first prompt runs once without the adapter: the proof that the adapter changes the logits.
    """
    started = time.monotonic()
    factors = stack([None, *(request.adapter for request in requests)], model.layers, dtype=model.dtype, device=model.device)
    decoder = Decoder(model, AdapterGroups(factors, model.policy_factors(requests[0].policy)), len(requests) + 1)
    witnesses = list(dict.fromkeys(request.prompts[0] for request in requests if request.adapter is not None))
    groups = [0] * len(witnesses) + [index + 1 for index, request in enumerate(requests) for _ in request.prompts]
    texts = witnesses + [prompt for request in requests for prompt in request.prompts]
    rows = decoder.prefill([encode(model.tokenizer, text) for text in texts], groups)
    plain = dict(zip(witnesses, rows.logits_R_V[: len(witnesses)], strict=True))
    if witnesses:
        rows = _repeat(rows, list(range(len(witnesses), len(texts))))
    golds = [list(model.tokenizer.encode(gold, add_special_tokens=False)) for request in requests for gold in request.golds]
    settings = DecodeSettings(0.0, 1.0, requests[0].max_tokens, requests[0].stop)
    first_logits = rows.logits_R_V
    logprobs = decoder.score(rows, golds)
    writings = decode(decoder, rows, [0] * len(golds), settings, None, cancelled)
    seconds = time.monotonic() - started
    results: list[EvaluationResult] = []
    offset = 0
    for request in requests:
        part = slice(offset, offset + len(request.prompts))
        difference = 0.0
        if request.adapter is not None:
            difference = float((first_logits[offset] - plain[request.prompts[0]]).abs().max())
        results.append(
            EvaluationResult(
                answers=tuple(writing.text.strip() for writing in writings[part]),
                logprobs=tuple(logprobs[part]),
                max_logit_difference=difference,
                tokens=sum(len(writing.tokens) for writing in writings[part]),
                engine_seconds=seconds * len(request.prompts) / len(golds),
            )
        )
        offset = part.stop
    return results


def _repeat(rows: Rows, copies: list[int]) -> Rows:
    """Rows picked and repeated by index, with room to write."""
    index = torch.tensor(copies, device=rows.logits_R_V.device)
    lengths = [rows.lengths[place] for place in copies]
    cache = rows.cache.select(index, capacity=max(lengths) + 64)
    return Rows(cache, [rows.groups[place] for place in copies], lengths, rows.logits_R_V[index])


def _parts(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Cut indices into runs whose sizes sum to at most `limit` (or one index)."""
    parts: list[list[int]] = [[]]
    used = 0
    for index, size in enumerate(sizes):
        if parts[-1] and used + size > limit:
            parts.append([])
            used = 0
        parts[-1].append(index)
        used += size
    return parts
