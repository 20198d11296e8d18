"""Writes the embedded few-shot corpus: one task for each rule, drawn by its name.

    python -m benchmarks.arc.corpus [--into seal/corpus]

The same every time. No augmentation makes a test of a demonstration, so that no answer is trained
on by chance, and every pair shows the rule: its output differs from its input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from benchmarks.arc.rules import TRAIN, VALIDATION, Rule
from seal.domains.arc.augmentations import GEOMETRIES
from seal.domains.arc.grids import Grid, is_grid
from seal.domains.arc.tasks import Pair
from seal.domains.arc.training_sets import changed_pair
from seal.restem.seeds import derive_seed

DEMONSTRATIONS, TESTS = 4, 3
DRAWS = 60
"""Inputs from which a task is taken."""


def drawn_input(rule: Rule, height: int, width: int, random: Random) -> Grid | None:
    """An input that a rule may be shown on; None if it came out as one that it is not."""
    grid = tuple(tuple(random.choice(rule.colours) for _ in range(width)) for _ in range(height))
    flat = [cell for row in grid for cell in row]
    enough = all(flat.count(colour) >= rule.needed.count(colour) for colour in rule.needed)
    return grid if enough else None


def task(rule: Rule) -> dict[str, object]:
    """The task of a rule; all its inputs are of one size."""
    random = Random(derive_seed("few-shot corpus", rule.name))
    height, width = random.randint(*rule.rows), random.randint(*rule.columns)
    tests: list[Pair] = []
    while len(tests) < TESTS:
        drawn = drawn_pairs(rule, height, width, random)
        shown = drawn[:DEMONSTRATIONS]
        seen = {likeness(pair) for pair in shown}
        tests = [pair for pair in drawn if likeness(pair) not in seen]
    return {
        "id": rule.name,
        "train": [written(pair) for pair in shown],
        "test": [written(pair) for pair in tests[:TESTS]],
    }


def drawn_pairs(rule: Rule, height: int, width: int, random: Random) -> list[Pair]:
    """Different pairs that show the rule, as many as some draws give."""
    inputs = (drawn_input(rule, height, width, random) for _ in range(DRAWS))
    pairs = [Pair(grid, rule.apply(grid)) for grid in dict.fromkeys(inputs) if grid]
    return [pair for pair in pairs if is_grid(pair.output) and pair.output != pair.input]


def likeness(pair: Pair) -> tuple[Grid, Grid]:
    """The same for all pairs that basic augmentations make of one another.

    Of a task whose inputs are of one size no other augmentation makes one input of another.
    """
    ways = [changed_pair(pair, way) for way in GEOMETRIES]
    return min(_with_colours_in_order(one) for one in (pair, *ways))


def _with_colours_in_order(pair: Pair) -> tuple[Grid, Grid]:
    """Colours by when they first come; 0 stays."""
    cells = [cell for grid in (pair.input, pair.output) for row in grid for cell in row]
    order = {colour: place for place, colour in enumerate(dict.fromkeys([0, *cells]))}

    def ordered(grid: Grid) -> Grid:
        return tuple(tuple(order[cell] for cell in row) for row in grid)

    return ordered(pair.input), ordered(pair.output)


def written(pair: Pair) -> dict[str, Grid]:
    """A pair as files have it."""
    return {"input": pair.input, "output": pair.output}


def lines(rules: Sequence[Rule]) -> str:
    """The tasks of some rules, one a line, in an order of chance: any first few are a mixture."""
    mixed = sorted(rules, key=lambda rule: derive_seed("few-shot corpus", "order", rule.name))
    return "".join(json.dumps(task(rule), separators=(",", ":")) + "\n" for rule in mixed)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("seal/corpus"))
    into = parser.parse_args().into
    for name, rules in {"arc-train": TRAIN, "arc-validation": VALIDATION}.items():
        (into / f"{name}.jsonl").write_text(lines(rules), encoding="utf-8")


if __name__ == "__main__":
    main()
