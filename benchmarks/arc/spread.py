"""Which edits the untrained policy writes for the training tasks: no training, minutes.

    python -m benchmarks.arc.spread [--samples 3] [--ways 0:1,0.6:0.9,0.8:0.95,1:1]

For each temperature and top-p: how many texts are edits, and how often each choice is made.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seal.dataset_rows import Place
from seal.datasets import read_values
from seal.domains.arc.domain import ArcDomain
from seal.domains.arc.prompts import edit_prompt
from seal.domains.arc.tasks import demonstrations_of, read_tasks
from seal.engine import Engine, GenerationRequest
from seal.models import resolve_model
from seal.prompts import Prompt
from seal.restem.seeds import derive_seed
from seal.settings import EngineSettings


def sampled(
    engine: Engine, prompts: Sequence[Prompt], *, temperature: float, top_p: float, samples: int
) -> list[str]:
    """Texts of the untrained policy."""
    seeds = tuple(
        tuple(derive_seed("spread", place, sample) for sample in range(samples))
        for place in range(len(prompts))
    )
    result = engine.generate(
        GenerationRequest(
            run="spread",
            policy=None,
            prompts=tuple(prompts),
            seeds=seeds,
            temperature=temperature,
            top_p=top_p,
            max_tokens=40,
            stop=prompts[0].stop,
        )
    ).future.result()
    return [sample.text for of_prompt in result.samples for sample in of_prompt]


def table(texts: Sequence[str]) -> str:
    """Valid texts, and of these how often each value of each choice was chosen."""
    chosen = [choices for text in texts if (choices := ArcDomain().choices([text]))]
    lines = [f"  valid {len(chosen)} of {len(texts)}"]
    for name in chosen[0] if chosen else ():
        counts = Counter(choices[name] for choices in chosen)
        lines.append(f"  {name}: " + ", ".join(f"{v} {n}" for v, n in sorted(counts.items())))
    lines += [f"  invalid: {text!r}" for text in texts if not ArcDomain().choices([text])][:4]
    return "\n".join(lines)


def main() -> None:
    """Print a table for each way of sampling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("seal/corpus/arc-train.jsonl"))
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--ways", default="0:1,0.6:0.9,0.8:0.95,1:1")
    given = parser.parse_args()
    values = read_values(Place(str(given.source)), given.source.read_text(encoding="utf-8"))
    contexts = read_tasks(values, source=str(given.source)).contexts
    prompts = [edit_prompt(demonstrations_of(context.text), "base") for context in contexts]
    model = resolve_model("smollm2-135m")
    engine = Engine.load(
        model.path, name="smollm2-135m", settings=EngineSettings(slots=4), base=model.base
    )
    for way in given.ways.split(","):
        temperature, top_p = map(float, way.split(":"))
        samples = given.samples if temperature else 1
        texts = sampled(engine, prompts, temperature=temperature, top_p=top_p, samples=samples)
        print(f"temperature {temperature}, top-p {top_p}\n{table(texts)}", flush=True)
    engine.close()


if __name__ == "__main__":
    main()
