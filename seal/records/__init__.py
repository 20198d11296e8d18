"""What a run or an adaptation leaves in the artifact store, as pydantic models.

One record per context, edit, inner loop and answer. Workers write them, selection and report read
them. A score that is missing is `None`, never 0.
"""

from seal.records.adaptation import (
    AdaptationCounts,
    AdaptationEvaluation,
    AdaptationResult,
    GateReason,
    GateVerdict,
    KeptQuestion,
    Measure,
    ModelDifference,
    ModelScore,
    QuestionRole,
    QuestionsRecord,
    RowKind,
    ScoredModel,
)
from seal.records.base import AdapterReference, Record
from seal.records.contexts import BaselineRecord, ContextRecord
from seal.records.edits import (
    ContextEditsRecord,
    EditRecord,
    ExampleRecord,
    OptimizerChoice,
    PartRecord,
    RatingsRecord,
    edit_text,
    part_texts,
)
from seal.records.intervals import Interval
from seal.records.loops import (
    AnswerRecord,
    EvaluationRecord,
    InnerLoopKind,
    InnerLoopRecord,
    TrainingRecord,
)
from seal.records.prepared import LongRow, ModelDescription, PreparedRecord
from seal.records.selection import (
    CONTROL_WITHOUT_REWARD,
    WARM_START,
    AbstainingRow,
    GoldRow,
    KeptEdit,
    LearntRow,
    SelectionRecord,
    SupervisedRecord,
    written_by,
)
from seal.records.stages import ScoreSum, ShardSummary, Stage

__all__ = [
    "CONTROL_WITHOUT_REWARD",
    "WARM_START",
    "AbstainingRow",
    "AdaptationCounts",
    "AdaptationEvaluation",
    "AdaptationResult",
    "AdapterReference",
    "AnswerRecord",
    "BaselineRecord",
    "ContextEditsRecord",
    "ContextRecord",
    "EditRecord",
    "EvaluationRecord",
    "ExampleRecord",
    "GateReason",
    "GateVerdict",
    "GoldRow",
    "InnerLoopKind",
    "InnerLoopRecord",
    "Interval",
    "KeptEdit",
    "KeptQuestion",
    "LearntRow",
    "LongRow",
    "Measure",
    "ModelDescription",
    "ModelDifference",
    "ModelScore",
    "OptimizerChoice",
    "PartRecord",
    "PreparedRecord",
    "QuestionRole",
    "QuestionsRecord",
    "RatingsRecord",
    "Record",
    "RowKind",
    "ScoreSum",
    "ScoredModel",
    "SelectionRecord",
    "ShardSummary",
    "Stage",
    "SupervisedRecord",
    "TrainingRecord",
    "edit_text",
    "part_texts",
    "written_by",
]
