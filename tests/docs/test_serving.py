"""The page on serving names every setting and every reason, and its manifest is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from controller_svc.k8s.publishing.promotion import MAX_NAMES, SERVED_ANNOTATION
from controller_svc.k8s.publishing.publication import WITHDRAW_ANNOTATION
from controller_svc.k8s.publishing.service_look import PublicationReason
from controller_svc.k8s.publishing.serving import DIGEST_CHARACTERS
from seal.config import adaptation_of_object
from seal.settings.publish import KServeSettings

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
ROWS = re.findall(r"(?m)^\| (.*) \|$", PAGE)
(ARGUMENTS,) = [re.findall(r"`(--[a-z-]+)`", row) for row in ROWS if row.startswith("`args`")]


def test_every_setting_has_its_row() -> None:
    named = {row.split("`")[1] for row in ROWS if row.startswith("`")}
    assert named == {field.alias for field in KServeSettings.model_fields.values()}


def test_every_reason_has_its_row_with_its_value() -> None:
    reasons = {row.split("`")[1] for row in ROWS if row.startswith(("True", "False", "Unknown"))}
    assert reasons >= {str(reason) for reason in PublicationReason}


def test_the_manifest_asks_for_what_its_text_says() -> None:
    (manifest,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    published = adaptation_of_object(yaml.safe_load(manifest))[1].publish
    assert published is not None
    assert published.kserve.adapter_name == "handbook-docs"


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_argument_of_vllm_that_it_names_is_taken(argument: str) -> None:
    given = argument if argument == "--enforce-eager" else f"{argument}=1"
    values = {"name": "a", "modelUri": "hf://o/m", "storeUri": "s3://bucket", "args": [given]}
    assert KServeSettings.model_validate(values).args == (given,)


def test_the_names_and_numbers_are_those_of_the_code() -> None:
    assert f"{WITHDRAW_ANNOTATION}=true" in PAGE
    assert f"`{WITHDRAW_ANNOTATION}-`" in PAGE
    assert f"`{SERVED_ANNOTATION}`" in PAGE
    assert f"first {DIGEST_CHARACTERS} digits" in PAGE
    assert f"{MAX_NAMES} adapters" in PAGE
