"""What `--tiny` runs on: a random model, and a few passages of the embedded corpus as files."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.learning.data import Sources
from benchmarks.random_model import save_random_model
from seal.datasets import load_contexts

PASSAGES = 4


def tiny_model(directory: Path) -> str:
    """A small random Llama, the same every time; its directory, as a spec names it."""
    return str(save_random_model(directory / "model"))


def tiny_files(directory: Path, given: Sources) -> Sources:
    """The given files, else some passages of the corpus in SQuAD's shape."""
    directory.mkdir(parents=True, exist_ok=True)
    return Sources(
        train=given.train or _squad_file(directory, "train"),
        validation=given.validation or _squad_file(directory, "validation"),
    )


def _squad_file(directory: Path, name: str) -> Path:
    articles = [
        {
            "title": context.title,
            "paragraphs": [
                {
                    "context": context.text,
                    "qas": [
                        {
                            "question": query.question,
                            "answers": [{"text": answer} for answer in query.answers],
                        }
                        for query in context.queries[:2]
                    ],
                }
            ],
        }
        for context in load_contexts(f"corpus://{name}", limit=PASSAGES)
    ]
    file = directory / f"{name}.json"
    file.write_text(json.dumps({"data": articles}), encoding="utf-8")
    return file
