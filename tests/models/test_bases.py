"""A base model is known by the digest of its weights wherever two sides meet."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from service_harness import policy, publish, training_request
from tiny_model import save_tiny_model

from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.bases import BaseReference
from seal.engine import Adapter, Engine, load_adapter, save_adapter
from seal.errors import InvalidInput, NotFound
from seal.models import resolve_model
from seal.rpc.convert import base_reference, policy_message
from seal.settings import EngineSettings
from trainer_svc.plan import body_digest, parse_training

ONE, OTHER = "1" * 64, "2" * 64
LOADED = BaseReference("mine", ONE, location="org/mine")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def cache(store: ArtifactStore) -> AdapterCache:
    from fake_engine import load_fake_adapter

    return AdapterCache(store, base=LOADED, load=load_fake_adapter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (BaseReference("yours", ONE), True),
        (BaseReference("mine", OTHER), False),
        (BaseReference("mine"), True),
        (BaseReference("org/mine"), True),
        (BaseReference("yours", location="org/mine"), True),
        (BaseReference("yours"), False),
        (BaseReference(""), False),
    ],
)
def test_digests_decide_and_names_only_where_one_side_has_no_digest(
    other: BaseReference, same: bool
) -> None:
    assert LOADED.same_as(other) is other.same_as(LOADED) is same


async def test_an_adapter_is_taken_by_its_bases_digest_whatever_the_base_is_called(
    store: ArtifactStore,
) -> None:
    adapters = cache(store)
    renamed = publish(store, base_model="renamed", base_sha256=ONE)
    assert (await adapters.get(renamed, field="adapter")).base.name == "renamed"
    foreign = publish(store, base_model="mine", base_sha256=OTHER)
    with pytest.raises(InvalidInput, match=f"{OTHER[:12]}.*has loaded 'mine' .{ONE[:12]}"):
        await adapters.get(foreign, field="adapter")


def test_a_request_for_other_weights_is_refused_with_both_digests(store: ArtifactStore) -> None:
    adapters = cache(store)
    adapters.check_base(BaseReference("another name", ONE))
    adapters.check_base(BaseReference("mine"))
    with pytest.raises(InvalidInput, match=f"{OTHER}.*{ONE}") as caught:
        adapters.check_base(BaseReference("mine", OTHER))
    assert caught.value.field == "policy.base_sha256"
    with pytest.raises(InvalidInput) as caught:
        adapters.check_base(BaseReference("another name"))
    assert caught.value.field == "policy.base_model"


def test_the_digest_crosses_the_wire_and_one_that_is_none_is_refused() -> None:
    message = policy_message("mine", None, base_sha256=ONE)
    assert base_reference(message) == BaseReference("mine", ONE)
    message.base_sha256 = "0x12"
    with pytest.raises(InvalidInput) as caught:
        base_reference(message)
    assert caught.value.field == "policy.base_sha256"


def test_a_training_is_the_same_request_whatever_a_base_with_a_digest_is_called() -> None:
    named, renamed = (
        training_request(policy=policy_message(name, None, base_sha256=ONE)) for name in "ab"
    )
    assert body_digest(named) == body_digest(renamed)
    assert body_digest(named) != body_digest(
        training_request(policy=policy_message("a", None, base_sha256=OTHER))
    )
    assert body_digest(training_request(policy=policy(base_model="a"))) != body_digest(
        training_request(policy=policy(base_model="b"))
    )
    assert parse_training(named).base == BaseReference("a", ONE)


def test_an_engine_says_whose_weights_it_runs_and_its_adapters_keep_it(tmp_path: Path) -> None:
    resolved = resolve_model(str(save_tiny_model(tmp_path / "model")), cache_dir=tmp_path / "cache")
    engine = Engine.load(
        resolved.path,
        name=str(resolved.path),
        settings=EngineSettings(slots=1, dtype="float32"),
        base=resolved.base,
    )
    engine.close()
    assert engine.base_sha256 == resolved.sha256 != ""
    adapter = Adapter(engine.base, 1, 1.0, _pairs())
    save_adapter(adapter, tmp_path / "adapter")
    assert load_adapter(tmp_path / "adapter").base.same_as(engine.base)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(resolved.path)


async def test_who_gives_a_wrong_path_to_an_adapter_alone_is_refused(store: ArtifactStore) -> None:
    adapters, good = cache(store), publish(store, base_sha256=ONE)
    wrong = good.model_copy(update={"path": f"elsewhere/{good.sha256}"})
    refused, loaded = await asyncio.gather(
        adapters.get(wrong, field="adapter"),
        adapters.get(good, field="adapter"),
        return_exceptions=True,
    )
    assert isinstance(refused, NotFound)
    assert not isinstance(loaded, BaseException)


@pytest.mark.parametrize("content", ["[]", "{", '{"name": 1, "sha256": ""}'])
def test_a_damaged_name_of_the_base_is_refused_by_file(tmp_path: Path, content: str) -> None:
    save_adapter(Adapter(LOADED, 1, 1.0, _pairs()), tmp_path)
    (tmp_path / "base.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"base\.json"):
        load_adapter(tmp_path)


def _pairs() -> dict[str, object]:
    import torch

    from seal.engine.peft_format import LoraPair

    return {"model.layers.0.self_attn.q_proj": LoraPair(torch.ones(1, 32), torch.ones(32, 1))}
