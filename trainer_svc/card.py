"""What stands in the README.md of an adapter: what it was trained on, and how it is loaded.

A function of the training alone: two equal trainings have equal cards, and so one address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seal.limits import VLLM_RANKS, vllm_rank

if TYPE_CHECKING:
    from seal.engine import Adapter
    from trainer_svc.plan import TrainingPlan

CARD_FILE = "README.md"


def adapter_card(adapter: Adapter, plan: TrainingPlan, *, steps: int) -> str:
    """The card of a trained adapter; `steps` is the number of optimiser steps."""
    base, optimizer = adapter.base, plan.optimizer
    location = base.found_at
    facts = {
        "base model": f"`{location}`" + (f", revision `{base.revision}`" if base.revision else ""),
        "sha256 of the base's weights": f"`{base.sha256}`" if base.sha256 else "not known",
        "policy beneath": _policy(plan),
        "rows": f"{len(plan.examples)}",
        "optimiser steps": f"{steps} ({optimizer.epochs} epochs, {optimizer.batch_size} rows each)",
        "learning rate": f"{optimizer.learning_rate:g}, {optimizer.schedule}",
        "LoRA": f"rank {plan.lora.rank}, alpha {plan.lora.alpha:g}, on "
        + ", ".join(plan.lora.target_modules),
        "seeds": f"{plan.init_seed} (weights), {plan.order_seed} (order)",
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    front = _front_matter(base.hub_id)
    return f"{front}{_introduction(plan)}{table}{_warning(plan)}{_loading(adapter)}"


def _introduction(plan: TrainingPlan) -> str:
    """What a reader has to know first: whether the model wrote what it was trained on."""
    rows = plan.rows_note or "text that a language model wrote for itself"
    return f"""# LoRA adapter trained by SEAL

This adapter was trained on {rows}
(Self-Adapting Language Models, arXiv 2506.10943).

| | |
|---|---|
"""


def _front_matter(hub_id: str) -> str:
    """What a model hub reads."""
    base = f"base_model: {hub_id}\n" if hub_id else ""
    return f"---\nlibrary_name: peft\n{base}tags:\n- lora\n- seal\n---\n"


def _policy(plan: TrainingPlan) -> str:
    if plan.policy is None:
        return "none: the base model alone"
    part = "contained in this adapter" if plan.with_policy else "not contained in this adapter"
    return f"adapter `{plan.policy.sha256}`, {part}"


def _warning(plan: TrainingPlan) -> str:
    if plan.policy is None or plan.with_policy:
        return ""
    return (
        "\n**It sits on the policy adapter above.** On the base model alone it does something "
        "else: load the policy first and merge it.\n"
    )


def _loading(adapter: Adapter) -> str:
    location = adapter.base.found_at
    digest = adapter.base.sha256
    exact = (
        f"\nThe numbers hold for base weights with the sha256 above. Where `{location}` has "
        "others, for example without quantisation, the answers may differ a little.\n"
        if digest
        else ""
    )
    return f"""
## Load it

With PEFT, from this directory:

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("{location}")
```

{_with_vllm(location, adapter.rank)}{exact}"""


def _with_vllm(location: str, rank: int) -> str:
    if (bound := vllm_rank(rank)) is None:
        return f"vLLM does not serve it: it takes adapters of rank {VLLM_RANKS[-1]} at most.\n"
    return f"""With vLLM:

```sh
vllm serve {location} --enable-lora --max-lora-rank {bound} \\
  --lora-modules seal=path/to/this/directory
```
"""
