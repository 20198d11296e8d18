"""What is measured: the models' shapes, the edits' lengths, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seal.settings import ALL_PROJECTIONS, LoraSettings

EDITS: tuple[tuple[int, ...], ...] = (
    (25, 24, 33, 17, 21, 37, 100),
    (16, 15, 25, 30, 28, 171),
    (17, 24, 27, 24, 19, 32, 29, 21, 18, 22, 29, 374),
    (21, 29, 51, 45, 23, 242),
    (34, 52, 31, 36, 41, 38, 41, 123),
    (13, 14, 21, 16, 14, 26, 13, 11, 141),
    (19, 22, 20, 30, 25, 49),
    (27, 21, 19, 32, 26, 28, 154),
    (35, 40, 31, 30, 213),
    (43, 38, 30, 35, 52, 46, 40, 223),
    (23, 26, 26, 32, 36, 32, 27, 32, 142),
    (28, 30, 35, 30, 22, 39, 35, 27, 180),
    (31, 33, 37, 29, 30, 17, 49, 28, 270),
    (20, 32, 25, 24, 27, 16, 23, 27, 24, 29, 213),
    (19, 22, 21, 21, 32, 130),
    (21, 39, 24, 25, 24, 24, 32, 23, 30, 34, 164),
    (15, 27, 17, 30, 27, 25, 122),
    (22, 31, 43, 39, 32, 40, 45, 39, 202),
    (17, 24, 38, 34, 164),
    (15, 19, 24, 30, 36, 46, 214),
    (19, 24, 20, 32, 30, 27, 33, 130),
    (65, 73, 59, 55, 63, 70, 64, 75, 67, 55, 245),
    (31, 40, 35, 34, 38, 121),
    (21, 29, 22, 22, 28, 34, 171),
    (31, 41, 23, 34, 33, 23, 175),
    (51, 35, 37, 27, 31, 184),
    (22, 26, 22, 21, 200),
    (39, 33, 33, 35, 30, 49),
    (29, 16, 22, 18, 38, 24, 15, 175),
    (42, 45, 32, 48, 51, 43, 43, 34, 245),
    (27, 32, 27, 45, 52, 76, 47, 109, 33, 73, 74, 160, 115, 70, 49, 187, 80, 100, 155),
    (55, 54, 42, 46, 41, 26, 44, 35, 43, 42, 44),
)
"""Tokens of each training row, end included, of 32 edits: every eighth of SEAL's 250 logged edits
by their tokens. 8.1 rows and 420 tokens on average; of all 250 it is 8.4 and 415."""
EPOCHS = 10
"""Passes over an edit's rows in a published inner loop."""
INNER = LoraSettings(rank=32, alpha=64, target_modules=("q_proj", "v_proj"))
"""The published inner loop's adapter."""
OUTER = LoraSettings(rank=64, alpha=128, target_modules=ALL_PROJECTIONS)
"""The published M-step's adapter."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Qwen2 or Llama model by its sizes."""

    name: str
    family: str
    """`qwen2` or `llama`."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    """The head is the embedding."""


QWEN_7B = Shape(
    name="Qwen2.5-7B's shape",
    family="qwen2",
    layers=28,
    hidden=3584,
    intermediate=18944,
    heads=28,
    kv_heads=4,
    vocabulary=152_064,
    tied=False,
)
SMOLLM_135M = Shape(
    name="SmolLM2-135M's shape",
    family="llama",
    layers=30,
    hidden=576,
    intermediate=1536,
    heads=9,
    kv_heads=3,
    vocabulary=49_152,
    tied=True,
)
TINY_SHAPE = Shape(
    name="a tiny shape",
    family="qwen2",
    layers=2,
    hidden=64,
    intermediate=96,
    heads=4,
    kv_heads=2,
    vocabulary=512,
    tied=False,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of all parts."""

    device: str
    dtype: torch.dtype
    large: Shape
    small: Shape
    edits: tuple[tuple[int, ...], ...]
    gemm_size: int
    copy_bytes: int
    slots: tuple[int, ...]
    """Adapters trained at once, and decoded at once."""
    steps: int
    """Steps of a training that are timed, at most."""
    reference_tokens: int
    """Tokens to which the published style pads every row."""
    reference_steps: int
    prompt_tokens: int
    answer_tokens: int
    questions: int
    """Of each adapter."""
    outer_rows: int
    """Rows of a step of the M-step."""
    outer_tokens: tuple[int, int]
    """Prompt and edit of such a row."""
    contexts: int
    candidates: int
    """Edits of each context in the round's inner loops."""
    epochs: int


FULL = Plan(
    device="cuda",
    dtype=torch.bfloat16,
    large=QWEN_7B,
    small=SMOLLM_135M,
    edits=EDITS,
    gemm_size=8192,
    copy_bytes=4 * 2**30,
    slots=(1, 8, 32),
    steps=24,
    reference_tokens=2048,
    reference_steps=6,
    prompt_tokens=48,
    answer_tokens=64,
    questions=5,
    outer_rows=10,
    outer_tokens=(230, 240),
    contexts=50,
    candidates=5,
    epochs=EPOCHS,
)
TINY = Plan(
    device="cpu",
    dtype=torch.float32,
    large=TINY_SHAPE,
    small=TINY_SHAPE,
    edits=((5, 9, 20), (7, 12), (4, 6, 8, 30), (11, 11)),
    gemm_size=128,
    copy_bytes=2**20,
    slots=(1, 3),
    steps=2,
    reference_tokens=32,
    reference_steps=2,
    prompt_tokens=8,
    answer_tokens=4,
    questions=2,
    outer_rows=2,
    outer_tokens=(9, 7),
    contexts=2,
    candidates=2,
    epochs=1,
)
"""All parts on a CPU within a minute; its figures mean nothing."""
