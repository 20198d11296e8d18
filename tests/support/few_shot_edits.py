"""Edits of the few-shot domain, made up by chance."""

from __future__ import annotations

import json

from seal.restem.seeds import derive_seed

TOOLS = ("basic", "size", "chain", "repeat")


def settings_edit(seed: int) -> str:
    """An edit of the domain: which tools, and how to train."""
    drawn = derive_seed(seed, "settings")
    return json.dumps(
        {
            "data_generation": {
                f"use_{tool}_augmentations": bool(drawn >> place & 1)
                for place, tool in enumerate(TOOLS)
            },
            "training": {
                "strategy": "train_using_output_tokens",
                "learning_rate": (0.001, 0.002, 0.005)[drawn % 3],
                "num_train_epochs": 1 + drawn % 2,
            },
        }
    )
