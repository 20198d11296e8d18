"""Base and adapter as one model: the same logits in transformers, all of it or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import ARCHITECTURES, byte_tokenizer, tiny_transformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from seal.bases import BaseReference
from seal.engine import load_adapter, save_adapter
from seal.engine import merge as merge_module
from seal.engine.merge import merge_adapter
from seal.errors import Conflict, InvalidInput, NotFound, SealError
from seal.model_files import check_model_directory
from seal.settings import ALL_PROJECTIONS

TOKENS = torch.tensor([list(range(3, 40))])
BASE = BaseReference("tiny", "a" * 64, location="org/tiny")


def save_base(directory: Path, architecture: str = "llama", **options: Any) -> Path:
    """A model directory; `dtype` and `max_shard_size` are how it is saved."""
    dtype = options.pop("dtype", torch.float32)
    shards = options.pop("max_shard_size", "1GB")
    model = tiny_transformer(architecture, **options).to(dtype)
    model.save_pretrained(directory, max_shard_size=shards)
    byte_tokenizer().save_pretrained(directory)
    return directory


def save_lora(directory: Path, base_dir: Path, **options: Any) -> Path:
    """An adapter of PEFT's with random factors on a saved base."""
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": list(ALL_PROJECTIONS)} | options
    base = AutoModelForCausalLM.from_pretrained(base_dir)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(directory, save_embedding_layers=False)
    return directory


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=TOKENS).logits[0].float()


def with_adapter(base_dir: Path, adapter_dir: Path) -> torch.Tensor:
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    return logits(PeftModel.from_pretrained(base, str(adapter_dir)))


def plain(directory: Path, **options: Any) -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(directory, **options))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Base, adapter, and where the merged model goes."""
    base = save_base(tmp_path / "base")
    return base, save_lora(tmp_path / "adapter", base), tmp_path / "new" / "merged"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_merged_model_has_the_logits_of_base_and_adapter(
    tmp_path: Path, architecture: str
) -> None:
    base = save_base(tmp_path / "base", architecture)
    adapter = save_lora(tmp_path / "adapter", base)
    merge_adapter(base, adapter, tmp_path / "merged")
    wanted = with_adapter(base, adapter)
    torch.testing.assert_close(plain(tmp_path / "merged"), wanted, atol=1e-4, rtol=1e-4)
    assert (plain(base) - wanted).abs().max() > 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"tie_word_embeddings": True},
        {"tie_word_embeddings": False},
        {"max_shard_size": "20KB"},
        {"tie_word_embeddings": True, "max_shard_size": "20KB"},
    ],
)
def test_however_the_base_was_saved(tmp_path: Path, options: dict[str, Any]) -> None:
    base = save_base(tmp_path / "base", **options)
    adapter = save_lora(tmp_path / "adapter", base, use_rslora=True)
    merge_adapter(base, adapter, tmp_path / "merged")
    torch.testing.assert_close(
        plain(tmp_path / "merged"), with_adapter(base, adapter), atol=1e-4, rtol=1e-4
    )
    assert len(check_model_directory(tmp_path / "merged")) == len(check_model_directory(base))
    assert (len(check_model_directory(base)) > 1) == ("max_shard_size" in options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_of_16_bits_stays_one_and_is_rounded_once(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    base = save_base(tmp_path / "base", dtype=dtype)
    adapter = save_lora(tmp_path / "adapter", base)
    merge_adapter(base, adapter, tmp_path / "merged")
    merged, before = (load_file(d / "model.safetensors") for d in (tmp_path / "merged", base))
    assert {tensor.dtype for tensor in merged.values()} == {dtype}
    lora = load_adapter(adapter)
    for layer, pair in lora.pairs.items():
        update = pair.b.float() @ pair.a.float() * lora.scale
        wanted = (before[f"{layer}.weight"].float() + update).to(dtype)
        assert torch.equal(merged[f"{layer}.weight"], wanted)
    difference = plain(tmp_path / "merged", dtype=torch.float32) - with_adapter(base, adapter)
    assert difference.abs().max() < 0.05


def test_weights_that_were_saved_without_the_output_layer(tmp_path: Path) -> None:
    model = tiny_transformer(tie_word_embeddings=True)
    model.model.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    names = load_file(tmp_path / "base" / "model.safetensors")
    assert not any(name.startswith("model.") for name in names)
    adapter = save_lora(tmp_path / "adapter", tmp_path / "base")
    merge_adapter(tmp_path / "base", adapter, tmp_path / "merged")
    wanted = with_adapter(tmp_path / "base", adapter)
    torch.testing.assert_close(plain(tmp_path / "merged"), wanted, atol=1e-4, rtol=1e-4)


def test_what_no_adapter_changes_is_the_same_to_the_byte(made: tuple[Path, Path, Path]) -> None:
    base, adapter, out = made
    merge_adapter(base, adapter, out)
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    merged, before = (load_file(d / "model.safetensors") for d in (out, base))
    same = {name for name in before if torch.equal(before[name], merged[name])}
    assert {name for name in before if "_proj" not in name} == same
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.decode(tokenizer.encode("Veldra")) == "Veldra"


def test_the_card_says_what_it_is_and_keeps_what_the_adapter_learnt(
    made: tuple[Path, Path, Path],
) -> None:
    base, adapter, out = made
    (adapter / "README.md").write_text("trained on the archives of Veldra")
    merge_adapter(base, adapter, out, base=BASE)
    card = (out / "README.md").read_text()
    for words in ("base_model: org/tiny", "`org/tiny`", "a" * 64, "rank 4, alpha 8", "14, of type"):
        assert words in card, words
    assert "ADAPTER.md" in card
    assert (out / "ADAPTER.md").read_text() == "trained on the archives of Veldra"
    assert str(base) not in card


def test_the_same_parts_give_the_same_bytes(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, adapter, out = made
    merge_adapter(base, adapter, out)
    merge_adapter(base, adapter, tmp_path / "again")
    for file in out.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


# Refused


def test_a_directory_that_exists_is_not_touched(made: tuple[Path, Path, Path]) -> None:
    base, adapter, out = made
    out.mkdir(parents=True)
    with pytest.raises(Conflict, match="exists") as refused:
        merge_adapter(base, adapter, out)
    assert refused.value.field == "out_dir" and refused.value.remedy
    assert list(out.iterdir()) == []


def test_one_that_comes_meanwhile_stays(
    made: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, out = made
    card = merge_module._card

    def other(*given: Any, **named: Any) -> str:
        out.mkdir()
        (out / "mine").write_text("x")
        return card(*given, **named)

    monkeypatch.setattr(merge_module, "_card", other)
    with pytest.raises(Conflict):
        merge_adapter(base, adapter, out)
    assert [file.name for file in out.parent.iterdir()] == ["merged"]
    assert [file.name for file in out.iterdir()] == ["mine"]


def test_a_merge_that_fails_leaves_nothing(
    made: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter, out = made

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge_module, "save_file", full)
    with pytest.raises(SealError, match="no space left"):
        merge_adapter(base, adapter, out)
    assert list(out.parent.iterdir()) == []


def test_an_adapter_of_another_base_is_refused_by_its_digest(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    base, adapter, out = made
    trained = load_adapter(adapter)
    named = type(trained)(BASE, trained.rank, trained.alpha, trained.pairs)
    save_adapter(named, tmp_path / "ours")
    with pytest.raises(InvalidInput, match="trained on base model") as refused:
        merge_adapter(base, tmp_path / "ours", out, base=BaseReference("tiny", "b" * 64))
    assert refused.value.field == "adapter"
    merge_adapter(base, tmp_path / "ours", out, base=BaseReference("other", "a" * 64))


def _other_width(directory: Path) -> None:
    tiny_transformer(hidden_size=64).save_pretrained(directory)


def _fewer_layers(directory: Path) -> None:
    tiny_transformer(num_hidden_layers=1).save_pretrained(directory)


@pytest.mark.parametrize("change", [_other_width, _fewer_layers])
def test_an_adapter_that_does_not_fit_is_refused_by_its_layer(
    made: tuple[Path, Path, Path], change: Callable[[Path], None]
) -> None:
    base, adapter, out = made
    change(base)
    with pytest.raises(InvalidInput, match="adapter layer model") as refused:
        merge_adapter(base, adapter, out)
    assert refused.value.field == "adapter"
    assert not out.parent.exists()


def test_an_adapter_on_the_output_layer_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_lora(tmp_path / "adapter", base, target_modules=["q_proj", "lm_head"])
    with pytest.raises(InvalidInput, match="adapter layer lm_head"):
        merge_adapter(base, adapter, tmp_path / "merged")


def test_a_quantised_base_is_refused(made: tuple[Path, Path, Path]) -> None:
    base, adapter, out = made
    weights = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="float8_e4m3fn"):
        merge_adapter(base, adapter, out)
    assert list(out.parent.iterdir()) == []


def test_what_is_no_model_or_no_adapter_is_refused(made: tuple[Path, Path, Path]) -> None:
    base, adapter, out = made
    with pytest.raises(NotFound):
        merge_adapter(base, base, out)
    with pytest.raises(InvalidInput, match="adapter"):
        merge_adapter(adapter, adapter, out)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.py"}}))
    with pytest.raises(InvalidInput, match="auto_map"):
        merge_adapter(base, adapter, out)
    shutil.rmtree(adapter)
    assert not out.parent.exists()
