"""What a tracker's library raises, in words that hold no secret."""

from __future__ import annotations

import os
import re

SECRETS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY")
"""Variables whose values are in no message."""
MAX_CHARACTERS = 300
_USER_OF_URL = re.compile(r"//[^/@\s]*@")


def without_secrets(text: str) -> str:
    """A text without the user part of its URLs, and without the values of the secret variables."""
    text = _USER_OF_URL.sub("//***@", text)
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def cause_of(error: Exception) -> str:
    """What a library says of an error, on one short line."""
    said = " ".join(without_secrets(str(error)).split()) or type(error).__name__
    return said[:MAX_CHARACTERS]
