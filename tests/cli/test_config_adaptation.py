"""Config of an adaptation: profile, its section for adaptations, file, overrides; refusals."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from synthetic_adaptation import adaptation_spec

from seal.config import load_adaptation, load_run
from seal.errors import InvalidInput
from seal.records import AdapterReference
from seal.settings import (
    PROFILES,
    AdaptationSpec,
    LearningSpec,
)

HEAD = "apiVersion: seal.dev/v1alpha1\nkind: Adaptation\nmetadata: {name: a, namespace: team}\n"
DOCUMENT = {"name": "a.md", "path": "uploads/a", "sha256": "a" * 64}
DOCUMENTS = {"data.documents": [DOCUMENT]}
OWN = {"policy", "data", "passages", "questions", "adapter", "gate"}


def refused(**overrides: object) -> InvalidInput:
    """What is said of overrides; `__` stands for a dot."""
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    with pytest.raises(InvalidInput) as caught:
        load_adaptation(None, DOCUMENTS | changes, source="request")
    return caught.value


@pytest.mark.parametrize("profile", [name for name in PROFILES if "arc" not in name])
def test_a_profile_says_the_same_of_runs_and_of_adaptations_where_they_are_alike(
    profile: str,
) -> None:
    run = load_run(None, {"profile": profile}).spec
    adaptation = load_adaptation(None, {"profile": profile, **DOCUMENTS}).spec
    shared = set(LearningSpec.model_fields) - {"inner", "max_unscored_share"}
    assert all(getattr(run, name) == getattr(adaptation, name) for name in shared)
    assert adaptation.inner.optimizer == run.inner.optimizer
    assert adaptation.inner.student == "base"
    assert set(AdaptationSpec.model_fields) - set(LearningSpec.model_fields) == OWN


@pytest.mark.parametrize("profile", [name for name in PROFILES if "arc" in name])
def test_a_profile_of_another_domain_takes_no_documents(profile: str) -> None:
    with pytest.raises(InvalidInput, match="documents are no contexts of domain 'arc'"):
        load_adaptation(None, {"profile": profile, **DOCUMENTS})


def test_the_embedded_profile_asks_by_sentence_for_two_candidates() -> None:
    spec = load_adaptation(None, DOCUMENTS).spec
    assert (spec.edit.family, spec.edit.k, spec.inner.racing) == ("self-qa-by-sentence", 2, ())
    assert spec.gate.confident and spec.gate.retained_questions == 32


def test_a_file_wins_over_the_profile_and_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    spec = f"data: {{documents: [{DOCUMENT}]}}\nadapter: {{lora: {{rank: 2}}}}\nseed: 3"
    path.write_text(f"{HEAD}spec:\n{textwrap.indent(spec, '  ')}\n")
    manifest = load_adaptation(path, {"seed": 4, "spec.gate.minGain": 0.2, "seedling": None})
    assert (manifest.name, manifest.namespace) == ("a", "team")
    assert manifest.spec.adapter.lora.rank == 2
    assert manifest.spec.adapter.lora.alpha == 16.0, "the profile's"
    assert (manifest.spec.seed, manifest.spec.gate.min_gain) == (4, 0.2)
    with pytest.raises(InvalidInput) as caught:
        load_run(path)
    assert caught.value.field == "kind"


@pytest.mark.parametrize(
    ("overrides", "field", "remedy"),
    [
        ({"data__documents": []}, "spec.data.documents", "give a list"),
        (
            {"data__documents": [DOCUMENT, DOCUMENT]},
            "spec.data.documents.1.name",
            "a name of its own",
        ),
        (
            {"data__documents": [DOCUMENT | {"path": "../a"}]},
            "spec.data.documents.0.path",
            "relative to the store's root",
        ),
        (
            {"data__documents": [DOCUMENT | {"path": "/etc/a"}]},
            "spec.data.documents.0.path",
            "relative to the store's root",
        ),
        (
            {"data__documents": [DOCUMENT | {"sha256": "A" * 64}]},
            "spec.data.documents.0.sha256",
            "lower-case hex",
        ),
        ({"policy": {"path": "a", "sha256": "b"}}, "spec.policy.sha256", "64 lower-case hex"),
        ({"policy": {"path": "/a", "sha256": "b" * 64}}, "spec.policy.path", "store's root"),
        ({"inner__student": "policy"}, "spec.inner.student", "set it to base"),
        ({"data__retained": ""}, "spec.gate.retainedQuestions", "data.retained"),
        (
            {"data__retained": "", "gate__retainedQuestions": 0, "adapter__replayRows": 1},
            "spec.adapter.replayRows",
            "data.retained",
        ),
        (
            {"data__questions": {"path": "q", "sha256": "b" * 64}},
            "spec.questions.source",
            "set it to given",
        ),
        ({"questions__heldOutShare": 0}, "spec.questions.heldOutShare", ""),
        ({"questions__heldOutShare": 1}, "spec.questions.heldOutShare", ""),
        ({"inner__preselect": 3}, "spec.inner.preselect", "2 or fewer"),
        ({"improve__lora__rank": 3}, "spec.improve", "policy, data, passages"),
    ],
)
def test_a_refusal_names_source_field_and_remedy(
    overrides: dict[str, object], field: str, remedy: str
) -> None:
    error = refused(**overrides)
    assert error.field == field
    assert remedy in error.remedy and error.remedy
    assert error.message.startswith(("request: ", "profile embedded: "))
    assert ";" not in error.message, "one fault is told once"


def test_a_race_is_checked_as_in_a_run() -> None:
    assert refused(inner__racing=[2], inner__repeats=2).field == "spec.inner.racing"


def test_a_policy_is_kept_as_it_was_given() -> None:
    policy = AdapterReference(path="run/adapters/b", sha256="b" * 64)
    assert adaptation_spec(policy=policy).policy == policy
