"""The opponents, written as the published system does it.

Transformers and PEFT, one adapter at a time. Training (`ReferenceTrainer`): a transformers
`Trainer` on a PEFT model per edit; every row padded to 2,048 tokens with the end-of-sequence token,
the pads in the loss (labels = input_ids); batch 1, AdamW, gradient clipping, no gradient
checkpointing, no logging; SDPA attention, transformers' default, which here is three times as fast
as eager.

Evaluation (`ReferenceEvaluator`): all adapters loaded, then one after another `set_adapter`,
`generate` on its questions as one left-padded batch, and one forward pass that scores the gold
answers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from seal.engine import Adapter, EvaluationRequest, save_adapter
from seal.settings import InnerLoopSettings, LoraSettings, OptimizerSettings

FIRST_ADAPTER = "0"
"""PEFT's names of the adapters are their numbers."""


class PaddedRows(Dataset[dict[str, torch.Tensor]]):
    """An edit's rows, each padded to `tokens` tokens; labels are the ids, pads included."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], tokens: int) -> None:
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        encoded = tokenizer(
            list(texts),
            truncation=True,
            padding="max_length",
            max_length=tokens,
            return_tensors="pt",
        )
        self._ids, self._mask = encoded["input_ids"], encoded["attention_mask"]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self._ids[index],
            "attention_mask": self._mask[index],
            "labels": self._ids[index].clone(),
        }


class _StepClock(TrainerCallback):
    """Seconds from the start of the first step to the end of the last."""

    def __init__(self, device: torch.device) -> None:
        self.started = 0.0
        self.seconds = 0.0
        self._device = device

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = self.started or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._device.type == "cuda" and state.global_step == args.max_steps:
            torch.cuda.synchronize(self._device)
        self.seconds = time.perf_counter() - self.started


class ReferenceTrainer:
    """P1's opponent."""

    def __init__(
        self,
        base: Any,
        tokenizer: Any,
        *,
        lora: LoraSettings,
        optimizer: OptimizerSettings,
        row_tokens: int,
    ) -> None:
        self._base, self._tokenizer, self._row_tokens = base, tokenizer, row_tokens
        self._lora, self._optimizer = lora, optimizer

    @classmethod
    def load(
        cls, directory: Path, *, inner: InnerLoopSettings, dtype: torch.dtype, row_tokens: int
    ) -> ReferenceTrainer:
        """On the model of a transformers directory."""
        return cls(
            AutoModelForCausalLM.from_pretrained(directory, dtype=dtype),
            AutoTokenizer.from_pretrained(directory),
            lora=inner.lora,
            optimizer=inner.optimizer,
            row_tokens=row_tokens,
        )

    def step_seconds(self, texts: Sequence[str], *, steps: int) -> float:
        """Seconds of `steps` optimiser steps on one edit's rows.

        Neither tokenising nor the construction of model and Trainer counts.
        """
        lora, optimizer = self._lora, self._optimizer
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=int(lora.alpha),
            lora_dropout=0.0,
            target_modules=list(lora.target_modules),
            bias="none",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(self._base, config)
        device = next(model.parameters()).device
        clock = _StepClock(device)
        with tempfile.TemporaryDirectory(prefix="seal-") as directory:
            arguments = TrainingArguments(
                output_dir=directory,
                per_device_train_batch_size=optimizer.batch_size,
                max_steps=steps,
                learning_rate=optimizer.learning_rate,
                lr_scheduler_type=optimizer.schedule,
                weight_decay=optimizer.weight_decay,
                max_grad_norm=optimizer.max_grad_norm,
                optim="adamw_torch",
                bf16=self._base.dtype is torch.bfloat16,
                use_cpu=device.type == "cpu",
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            rows = PaddedRows(self._tokenizer, texts, self._row_tokens)
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=rows,
                data_collator=default_data_collator,
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        self._base = model.unload()
        return clock.seconds


@dataclass(frozen=True)
class ReferenceAnswers:
    """What one adapter's evaluation gave."""

    generate_seconds: float
    score_seconds: float
    tokens: int
    """Tokens generated, up to each row's end."""
    texts: tuple[str, ...]
    logprobs: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.generate_seconds + self.score_seconds


class ReferenceEvaluator:
    """P6's opponent: every adapter is loaded beforehand, which is not counted."""

    def __init__(self, directory: Path, adapters: Sequence[Adapter], *, dtype: torch.dtype) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._tokenizer.pad_token = self._tokenizer.eos_token
        self._tokenizer.padding_side = "left"
        base = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        with tempfile.TemporaryDirectory(prefix="seal-") as saved:
            for index, adapter in enumerate(adapters):
                save_adapter(adapter, Path(saved) / str(index))
            # bf16 adapters on a bf16 model: PEFT's default casts them to float32 and every
            # activation back and forth
            self._model: Any = PeftModel.from_pretrained(
                base,
                str(Path(saved) / FIRST_ADAPTER),
                adapter_name=FIRST_ADAPTER,
                autocast_adapter_dtype=False,
            )
            for index in range(1, len(adapters)):
                self._model.load_adapter(
                    str(Path(saved) / str(index)),
                    adapter_name=str(index),
                    autocast_adapter_dtype=False,
                )
        self._model.eval()

    @torch.inference_mode()
    def evaluate(self, index: int, request: EvaluationRequest) -> ReferenceAnswers:
        """Answer and score one adapter's questions.

        The stop strings and the bound are the request's.
        """
        started = time.perf_counter()
        self._model.set_adapter(str(index))
        encoded = self._tokenizer(_raw_prompts(request), padding=True, return_tensors="pt")
        written = self._model.generate(
            **encoded,
            do_sample=False,
            max_new_tokens=request.max_tokens,
            stop_strings=list(request.stop),
            tokenizer=self._tokenizer,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=self._tokenizer.eos_token_id,
        )[:, encoded["input_ids"].shape[1] :]
        texts = tuple(self._tokenizer.batch_decode(written, skip_special_tokens=True))
        generated = time.perf_counter()
        logprobs = self._score(request)
        finished = time.perf_counter()
        tokens = int((written != self._tokenizer.pad_token_id).sum())
        return ReferenceAnswers(generated - started, finished - generated, tokens, texts, logprobs)

    def _score(self, request: EvaluationRequest) -> tuple[float, ...]:
        """Mean log p of each gold answer's tokens, one padded batch."""
        golds = [self._tokenizer.encode(gold, add_special_tokens=False) for gold in request.golds]
        rows = [
            self._tokenizer.encode(prompt) + gold
            for prompt, gold in zip(_raw_prompts(request), golds, strict=True)
        ]
        batch = self._tokenizer.pad(
            {"input_ids": rows}, return_tensors="pt"
        )  # left: a row's gold answer stands at its end
        positions = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
        keep = max(map(len, golds)) + 1
        logits_R_K_V = self._model(
            **batch, position_ids=positions, use_cache=False, logits_to_keep=keep
        ).logits
        scores = []
        for logits_K_V, gold in zip(logits_R_K_V, golds, strict=True):
            chosen = torch.log_softmax(logits_K_V[-len(gold) - 1 : -1].float(), -1).gather(
                1, torch.tensor(gold)[:, None]
            )
            scores.append(float(chosen.mean()))
        return tuple(scores)


def _raw_prompts(request: EvaluationRequest) -> list[str]:
    """The prompts as text to continue: the published questions are no chats."""
    return [prompt if isinstance(prompt, str) else prompt.text for prompt in request.prompts]
