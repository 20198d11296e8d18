"""What a wrong value of a request is told fits every field that is checked so."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, field_validator

from seal.errors import InvalidInput
from seal.rpc import validation


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("is odd")
        return number


def test_a_digest_of_any_file_is_asked_for_without_naming_a_service() -> None:
    with pytest.raises(InvalidInput) as caught:
        validation.sha256("x", field="header.sha256")
    assert "sha256sum" in caught.value.remedy and "trainer" not in caught.value.remedy


def test_a_name_that_occurs_twice_is_not_called_an_id() -> None:
    with pytest.raises(InvalidInput, match="occurs twice") as caught:
        validation.unique(["a.md", "a.md"], field="documents[{index}].name")
    assert caught.value.remedy == "let each differ"


def test_a_refused_setting_is_told_in_the_words_of_its_rule() -> None:
    with pytest.raises(InvalidInput) as caught:
        validation.settings(Even, field="lora", number=1)
    assert "is odd" in caught.value.message and "Value error" not in caught.value.message
    assert "seal.settings" not in caught.value.remedy
