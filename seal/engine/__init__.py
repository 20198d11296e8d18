"""One frozen base model, many LoRA slots: train, generate, score. The only torch code of the project; the three services use it."""

from seal.engine.engine import Engine
from seal.engine.memory import MemoryEstimate
from seal.engine.peft_format import Adapter, concatenate, load_adapter, save_adapter
from seal.engine.queues import EngineTask
from seal.engine.requests import (
    EvaluationRequest,
    EvaluationResult,
    GenerationRequest,
    GenerationResult,
    Sample,
    TaskState,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
)

__all__ = [
    "Adapter",
    "Engine",
    "EngineTask",
    "EvaluationRequest",
    "EvaluationResult",
    "GenerationRequest",
    "GenerationResult",
    "MemoryEstimate",
    "Sample",
    "TaskState",
    "TrainingProgress",
    "TrainingRequest",
    "TrainingResult",
    "concatenate",
    "load_adapter",
    "save_adapter",
]
