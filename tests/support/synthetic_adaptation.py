"""Adaptations without documents behind them: specs, counts and results."""

from __future__ import annotations

from seal.outcomes import Outcome
from seal.records import (
    AdaptationEvaluation,
    AdaptationResult,
    AdapterReference,
    GateReason,
    GateVerdict,
    Interval,
    ModelDifference,
    ModelScore,
)
from seal.settings import (
    AdaptationData,
    AdaptationSpec,
    DocumentReference,
    QuestionSettings,
)

ADAPTER = AdapterReference(path="adapt-demo-0a1b/adapters/1", sha256="1" * 64)
PASSAGES_ADAPTER = AdapterReference(path="adapt-demo-0a1b/adapters/2", sha256="2" * 64)


def adaptation_spec(*, self_made: bool = True, **update: object) -> AdaptationSpec:
    """A spec with one document that nobody can read."""
    data = AdaptationData(
        documents=(DocumentReference(name="a.md", path="uploads/a", sha256="a" * 64),)
    )
    questions = QuestionSettings(source="self-made" if self_made else "given")
    return AdaptationSpec.model_validate({"data": data, "questions": questions, **update})


def synthetic_result(
    *, refused: GateReason | None = None, gain: float = 0.25, self_made: bool = True
) -> AdaptationResult:
    """What a small adaptation came to."""
    value = Interval(gain, gain - 0.125, gain + 0.125, 4)
    verdict = GateVerdict(passed=refused is None, reason=refused, message=f"gain {gain:+.3f}")
    return AdaptationResult(
        adapter=ADAPTER,
        passages_adapter=PASSAGES_ADAPTER,
        outcomes={"passages": Outcome.OK, "adapter": Outcome.OK},
        rows={"edit": 20, "passage": 4},
        left_out=1,
        evaluation=AdaptationEvaluation(
            questions=8,
            self_made=self_made,
            scores=(ModelScore(model="adapter", measure="f1", value=value),),
            differences=(
                ModelDifference(model="adapter", against="base", measure="f1", value=value),
                ModelDifference(model="adapter", against="passages", measure="f1", value=value),
            ),
        ),
        gate=verdict,
    )
