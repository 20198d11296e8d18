"""The configuration of runs and adaptations, as pydantic models.

A docstring with the unit under each field, unknown fields refused, integers bounded. A manifest's
`spec` holds any part of `RunSpec` or `AdaptationSpec`; what it leaves out comes from its profile
(`seal/profiles/*.yaml`): `embedded` is tuned for the 135M model on a CPU, `published` holds the
numbers of the paper (arXiv 2506.10943, appendix B) for 7B models on GPUs. Files write the fields in
camelCase, as Kubernetes does. This module is light: no torch, no network.
"""

from seal.settings.adaptation import (
    AdaptationData,
    AdaptationSpec,
    AdapterTraining,
    DocumentReference,
    FileReference,
    GateSettings,
    PassageSettings,
    QuestionSettings,
    Spec,
)
from seal.settings.base import MAX_SEED, FileSettings, Settings
from seal.settings.data import ArtifactSettings, DataSettings
from seal.settings.domains import DOMAIN_OPTIONS, DomainName, DomainOptions, check_votes
from seal.settings.edits import (
    BY_SENTENCE,
    EditSettings,
    ExampleSettings,
    PromptFamily,
    PromptFormat,
)
from seal.settings.endpoints import (
    DEFAULT_LIMITS,
    EditGenerator,
    EndpointLimits,
    EndpointSettings,
    JudgeSettings,
)
from seal.settings.engine import ComputeType, EngineSettings
from seal.settings.evaluation import (
    EvaluationSettings,
    GraderName,
    QuestionFormat,
    TextGrader,
    ValidationSettings,
)
from seal.settings.improve import ImproveSettings
from seal.settings.inner import InnerLoopSettings, PreselectBy, RacingScore, check_survivors
from seal.settings.learning import PROFILES, LearningSpec
from seal.settings.run import RunSpec
from seal.settings.tracking import TrackingSettings
from seal.settings.training import ALL_PROJECTIONS, MAX_EPOCHS, LoraSettings, OptimizerSettings

__all__ = [
    "ALL_PROJECTIONS",
    "BY_SENTENCE",
    "DEFAULT_LIMITS",
    "DOMAIN_OPTIONS",
    "MAX_EPOCHS",
    "MAX_SEED",
    "PROFILES",
    "AdaptationData",
    "AdaptationSpec",
    "AdapterTraining",
    "ArtifactSettings",
    "ComputeType",
    "DataSettings",
    "DocumentReference",
    "DomainName",
    "DomainOptions",
    "EditGenerator",
    "EditSettings",
    "EndpointLimits",
    "EndpointSettings",
    "EngineSettings",
    "EvaluationSettings",
    "ExampleSettings",
    "FileReference",
    "FileSettings",
    "GateSettings",
    "GraderName",
    "ImproveSettings",
    "InnerLoopSettings",
    "JudgeSettings",
    "LearningSpec",
    "LoraSettings",
    "OptimizerSettings",
    "PassageSettings",
    "PreselectBy",
    "PromptFamily",
    "PromptFormat",
    "QuestionFormat",
    "QuestionSettings",
    "RacingScore",
    "RunSpec",
    "Settings",
    "Spec",
    "TextGrader",
    "TrackingSettings",
    "ValidationSettings",
    "check_survivors",
    "check_votes",
]
