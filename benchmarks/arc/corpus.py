"""Writes the embedded few-shot corpus: one task for each rule, drawn by its name.

    python -m benchmarks.arc.corpus [--into seal/corpus]

The same every time. A test is no demonstration, and every pair shows the rule: its output differs
from its input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from benchmarks.arc.rules import TRAIN, VALIDATION, Rule
from seal.domains.arc.grids import Grid, is_grid
from seal.restem.seeds import derive_seed

DEMONSTRATIONS, TESTS = 4, 3


def drawn_input(rule: Rule, random: Random) -> Grid | None:
    """An input that a rule may be shown on; None if it came out as one that it is not."""
    height, width = random.randint(*rule.rows), random.randint(*rule.columns)
    grid = tuple(tuple(random.choice(rule.colours) for _ in range(width)) for _ in range(height))
    flat = [cell for row in grid for cell in row]
    enough = all(flat.count(colour) >= rule.needed.count(colour) for colour in rule.needed)
    return grid if enough else None


def task(rule: Rule) -> dict[str, object]:
    """The task of a rule."""
    random = Random(derive_seed("few-shot corpus", rule.name))
    pairs: dict[Grid, Grid] = {}
    while len(pairs) < DEMONSTRATIONS + TESTS:
        grid = drawn_input(rule, random)
        if grid is None:
            continue
        output = rule.apply(grid)
        if is_grid(output) and output != grid:
            pairs[grid] = output
    written = [{"input": asked, "output": answer} for asked, answer in pairs.items()]
    return {"id": rule.name, "train": written[:DEMONSTRATIONS], "test": written[DEMONSTRATIONS:]}


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
