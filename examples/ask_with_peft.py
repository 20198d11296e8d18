"""Ask an exported adapter with transformers and PEFT alone, as `seal chat` asks it.

    seal models pull smollm2-135m --to models        the base model; prints its directory, BASE
    seal export handbook handbook-adapter            the adapter
    pip install peft
    python examples/ask_with_peft.py BASE handbook-adapter "Who built it?"

The base model is a small one that has learnt no chat form: it goes on with a text. Three worked
examples before the question show it the form of an answer, which ends with its line.
"""

from __future__ import annotations

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

SHOTS = """\
Question: Who wrote the play Hamlet?
Answer: William Shakespeare

Question: How many legs does a spider have?
Answer: 8

Question: What is the capital of Japan?
Answer: Tokyo

"""
MAX_TOKENS = 64


def prompt_of(question: str) -> str:
    """What the model goes on with."""
    return f"{SHOTS}Question: {question}\nAnswer:"


def ask(base: str, adapter: str, question: str) -> str:
    """The answer of the adapted model, the likeliest token each time; of the base without one."""
    logging.disable_progress_bar()  # of the weights that are loaded
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    inputs = tokenizer(prompt_of(question), return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
    answer = tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer.split("\n")[0].strip()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print(ask(*sys.argv[1:]))
