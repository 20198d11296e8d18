"""A text that is told while it is written: only what stays, and in the end all of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_decoding import generation
from test_engine_text import spaced_tokenizer
from tiny_model import byte_tokenizer, tiny_model
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from seal.engine import Engine
from seal.engine.decoding import RunningBatch
from seal.engine.streaming import TextStream
from seal.engine.text import ModelText, cut_at_stop
from seal.errors import Internal, InvalidInput
from seal.settings import EngineSettings

BYTES = ModelText(byte_tokenizer(), name="bytes")
SPACED = ModelText(spaced_tokenizer(), name="spaced")


def fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2: words with their space, and a token for every byte of what has no token."""
    words = ["▁a", "▁", "b", "▁the", "é", "\n", ".", "�"]
    bare = [f"<0x{byte:02X}>" for byte in range(256)]
    names = ["<unk>", "<s>", "</s>", *bare, *words]
    tokenizer = Tokenizer(
        models.BPE(vocab={name: token for token, name in enumerate(names)}, merges=[])
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


FALLBACK = ModelText(fallback_tokenizer(), name="fallback")


def told(text: ModelText, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    """What is certain after each token, up to the one that completes a stop string."""
    stream, certain = TextStream(text, stop), []
    for end in range(1, len(tokens) + 1):
        if cut_at_stop(text.decode(tokens[:end]), stop)[1]:
            break
        certain.append(stream.certain(tokens[:end]))
    return certain


def check(text: ModelText, tokens: list[int], stop: tuple[str, ...]) -> None:
    whole = cut_at_stop(text.decode(tokens), stop)[0]
    before = ""
    for certain in told(text, tokens, stop):
        assert certain.startswith(before)
        assert whole.startswith(certain)
        before = certain


STOPS = st.lists(st.sampled_from(["\n", "ab", "a b", " the", "é.", "bb", "€\n"]), max_size=3)


@settings(deadline=None)
@given(st.lists(st.integers(0, 258), max_size=40), STOPS.map(tuple))
def test_what_is_told_of_any_bytes_stays(tokens: list[int], stop: tuple[str, ...]) -> None:
    check(BYTES, tokens, stop)


@settings(deadline=None)
@given(st.text("aé€🦭\nb�", max_size=12), STOPS.map(tuple))
def test_what_is_told_of_whole_characters_stays(text: str, stop: tuple[str, ...]) -> None:
    check(BYTES, BYTES.completion(text), stop)


@settings(deadline=None)
@given(st.lists(st.integers(0, 96), max_size=30), STOPS.map(tuple))
def test_what_is_told_of_words_with_their_space_stays(
    tokens: list[int], stop: tuple[str, ...]
) -> None:
    check(SPACED, tokens, stop)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(259, 266),
            st.sampled_from([3 + byte for byte in "a€🦭".encode()]),
            st.integers(0, 258),
        ),
        max_size=30,
    ),
    STOPS.map(tuple),
)
def test_what_is_told_of_words_and_bare_bytes_stays(
    tokens: list[int], stop: tuple[str, ...]
) -> None:
    check(FALLBACK, tokens, stop)


def test_a_character_is_told_once_all_its_bytes_are_there() -> None:
    assert told(BYTES, BYTES.completion("a€b")) == ["a", "a", "a", "a€", "a€b"]


def test_what_may_begin_a_stop_string_waits_until_it_is_none() -> None:
    tokens = BYTES.completion("to\nQ: x\nQuest")
    assert told(BYTES, tokens, ("\nQuestion:",))[-6:] == ["to\nQ: x"] * 6
    assert told(BYTES, BYTES.completion("\nQu."), ("\nQuestion:",)) == ["", "", "", "\nQu."]


def test_a_space_between_words_is_told_and_one_before_the_text_is_not() -> None:
    tokens = SPACED.tokenizer.convert_tokens_to_ids(list("▁a▁b"))
    assert told(SPACED, tokens) == ["", "a", "a ", "a b"]


# In the engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(tiny_model(), EngineSettings(slots=0, dtype="float32"))
    yield engine
    engine.close()


def one(seed: int = 1, **changes: object):
    base = {"prompts": ("Once",), "seeds": ((seed,),), "temperature": 2.0, "max_tokens": 60}
    return generation(**(base | changes))


@pytest.mark.parametrize("seed", range(3))
def test_a_text_is_told_piece_by_piece_and_the_last_is_the_whole(engine, seed) -> None:
    telling: list[str] = []
    result = engine.generate(one(seed), on_text=telling.append).future.result(60)
    assert telling[-1] == result.samples[0][0].text
    assert len(telling) > 5
    for before, after in pairwise(telling):
        assert after.startswith(before) and len(after) > len(before)
    alone = engine.generate(one(seed)).future.result(60)
    assert alone.samples == result.samples


def test_a_stop_string_is_never_told(engine) -> None:
    whole = engine.generate(one(top_p=0.5)).future.result(60).samples[0][0].text
    stop = whole[20:23]
    telling: list[str] = []
    request = one(top_p=0.5, stop=(stop,))
    result = engine.generate(request, on_text=telling.append).future.result(60)
    assert telling[-1] == result.samples[0][0].text == whole[: whole.index(stop)]
    assert not any(stop in text for text in telling)


def test_a_text_that_is_begun_again_is_told_on(engine, monkeypatch) -> None:
    expected = engine.generate(one()).future.result(60).samples
    write, failures = RunningBatch._write, [RuntimeError("not enough memory")]

    def fails_once(self, rows):
        if failures and len(rows[0].tokens) == 10:
            raise failures.pop()
        write(self, rows)

    monkeypatch.setattr(RunningBatch, "_write", fails_once)
    telling: list[str] = []
    result = engine.generate(one(), on_text=telling.append).future.result(60)
    assert not failures and result.samples == expected
    assert telling[-1] == expected[0][0].text
    assert [len(text) for text in telling] == sorted({len(text) for text in telling})


def test_only_a_single_sample_can_be_streamed(engine) -> None:
    with pytest.raises(InvalidInput, match="3 samples") as refused:
        engine.generate(generation(), on_text=lambda _: None)
    assert refused.value.field == "seeds"


def test_a_listener_that_fails_ends_its_own_text_and_no_other(engine) -> None:
    def fails(_: str) -> None:
        raise ValueError("gone")

    other = engine.generate(one(2))
    with pytest.raises(Internal, match="gone"):
        engine.generate(one(), on_text=fails).future.result(60)
    assert other.future.result(60).samples[0][0].text
