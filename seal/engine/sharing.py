"""What a new row need not compute: what another row of its adapter has in the cache.

Samples of one prompt share all of it, questions of one few-shot format share the examples, parts of
an edit the worked examples and their sentence. A row copies a prefix that another row has and
computes the rest, so that what rows have in common is computed once. Rows that come together are
cut into *levels*: a row that copies from another new row runs one level after it.

The prompts of a group form a tree: a branch is tokens that some of them have at the same positions,
and belongs to the first row that has them. The prefixes that a row can copy lie along its way from
the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from seal.engine.memory import PASS_TOKENS

LEVEL_TOKENS = 16
"""A row waits one level more only for a prefix longer by more than this. A level is a pass of its
own: 55 ms of one core with SmolLM2-135M, in which a pass that runs anyhow computes 17 tokens more
in float32, 33 in bfloat16."""


@dataclass(frozen=True)
class Prompted:
    """A row's place, its group (rows of one adapter) and its prompt's tokens."""

    place: int
    group: int
    prompt: list[int]


@dataclass(frozen=True)
class Start:
    """How a new row begins."""

    row: int
    """Index into the new rows."""
    source: int
    """Place whose first `shared` positions are copied; the row's own place when nothing is
    shared."""
    shared: int
    """Less than the prompt's length: the last token is always computed, for its logits."""


def plan_starts(running: Sequence[Prompted], new: Sequence[Prompted]) -> list[list[Start]]:
    """Levels of new rows, each to be computed after the one before."""
    trees: dict[int, _Branch] = {}
    for old in running:
        trees.setdefault(old.group, _Branch()).add(old, level=-1)
    levels: list[list[Start]] = []
    for index, row in enumerate(new):
        tree = trees.setdefault(row.group, _Branch())
        shared, source, level = 0, row.place, 0
        for length, _, branch in tree.way(row.prompt):
            usable = min(length, len(row.prompt) - 1)
            if usable - shared > LEVEL_TOKENS * (branch.level + 1 - level):
                shared, source, level = usable, branch.place, branch.level + 1
        tree.add(row, level=level)
        levels += [[] for _ in range(level + 1 - len(levels))]
        levels[level].append(Start(index, source, shared))
    return levels


def cut_into_passes(starts: Sequence[Start], costs: Sequence[int]) -> list[list[Start]]:
    """Cut a level into runs that compute at most PASS_TOKENS tokens (or one start)."""
    parts: list[list[Start]] = [[]]
    used = 0
    for start, cost in zip(starts, costs, strict=True):
        if parts[-1] and used + cost > PASS_TOKENS:
            parts.append([])
            used = 0
        parts[-1].append(start)
        used += cost
    return parts


def shared_by_all(rows: Sequence[Prompted]) -> int:
    """Tokens that all rows begin with, which are the same in all places; 0 for a single row."""
    if len(rows) < 2 or len({row.group for row in rows}) > 1:
        return 0
    prompts = [row.prompt for row in rows]
    return common_prefix(min(prompts), max(prompts))  # the two that differ first


@dataclass(eq=False)
class _Branch:
    """Tokens of prompts, and what follows them by its first token; the root has none."""

    tokens: list[int] = field(default_factory=list)
    place: int = -1
    """Of the first row that has them."""
    level: int = -1
    """After which they are there; -1 of a running row."""
    following: dict[int, _Branch] = field(default_factory=dict)

    def way(self, prompt: list[int]) -> Iterator[tuple[int, int, _Branch]]:
        """The branches along a prompt.

        With each: tokens of the prompt up to where it leaves the branch, and how many of them lie
        in the branch.
        """
        after, length = self.following.get(prompt[0]), 0
        while after is not None:
            common = common_prefix(after.tokens, prompt[length:])
            whole = common == len(after.tokens)
            length += common
            yield length, common, after
            goes_on = whole and length < len(prompt)
            after = after.following.get(prompt[length]) if goes_on else None

    def add(self, row: Prompted, *, level: int) -> None:
        """Put a prompt in; its row has the tokens that no other had before."""
        branch, rest = self, row.prompt
        for length, common, branch in self.way(row.prompt):
            if common < len(branch.tokens):
                branch.cut(common)
            rest = row.prompt[length:]
        if rest:
            branch.following[rest[0]] = _Branch(rest, row.place, level)

    def cut(self, length: int) -> None:
        """Leave the first tokens here, the others to a branch that follows."""
        rest = _Branch(self.tokens[length:], self.place, self.level, self.following)
        self.tokens, self.following = self.tokens[:length], {rest.tokens[0]: rest}


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # the first `low` tokens agree, the first `high + 1` do not
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
