"""One frozen base model, many LoRA slots: train, generate, score.

The only torch code of the project; the three services use it.
"""

from seal.engine.checkpoint import SlotCheckpoint
from seal.engine.checkpointing import Checkpoints, Suspended
from seal.engine.engine import Engine
from seal.engine.limits import ModelLimits
from seal.engine.memory import MemoryEstimate
from seal.engine.outline import ModelOutline, read_outline
from seal.engine.peft_format import Adapter, concatenate, folded, load_adapter, save_adapter
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
    "Checkpoints",
    "Engine",
    "EngineTask",
    "EvaluationRequest",
    "EvaluationResult",
    "GenerationRequest",
    "GenerationResult",
    "MemoryEstimate",
    "ModelLimits",
    "ModelOutline",
    "Sample",
    "SlotCheckpoint",
    "Suspended",
    "TaskState",
    "TrainingProgress",
    "TrainingRequest",
    "TrainingResult",
    "concatenate",
    "folded",
    "load_adapter",
    "read_outline",
    "save_adapter",
]
