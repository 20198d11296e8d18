"""Learning health: whether the policy learns, or collapses, forgets or hacks its reward."""

from __future__ import annotations

from charts.dashboards.board import (
    NAMESPACE_OF_RUNS,
    OF_RUN,
    RUN,
    Board,
    Panel,
    Query,
    Row,
    by_round,
    latest,
)

_REWARD = Row(
    "Reward against held-out",
    (
        Panel(
            title="Reward in training and held out",
            description="Mean reward of edits on the contexts that the policy learns from "
            "(rollout), and on held-out ones (validate). The first rising while the second falls "
            "is reward hacking.",
            queries=(
                Query(by_round(latest("seal_run_reward", f'{OF_RUN}, kind="edit"'), "stage")),
            ),
            kind="rounds",
            columns=12,
            runbook="SealHeldOutFallingWhileRewardRises",
        ),
        Panel(
            title="Edits against the bounds",
            description="Held-out reward by kind: the model alone, edits, the passage alone, gold "
            "pairs. Edits that are not above the passage teach nothing that the passage does not.",
            queries=(
                Query(by_round(latest("seal_run_reward", f'{OF_RUN}, stage="validate"'), "kind")),
            ),
            kind="rounds",
            columns=12,
            runbook="SealRewardFalling",
        ),
    ),
)
_BEFORE, _AFTER = (
    latest("seal_run_retained_score", f"{OF_RUN}, {labels}")
    for labels in ('model="policy", round="0"', 'model="edit"')
)
_FORGETTING = Row(
    "Forgetting",
    (
        Panel(
            title="Retained score",
            description="Score on questions that no edit is about, of the policy alone and after "
            "an edit is learnt, by round. From green to red it is forgotten; log-probabilities "
            "lie below the scale, and are red.",
            queries=(
                Query(
                    f"max by (namespace, run, round, model) (seal_run_retained_score{{{OF_RUN}}})",
                    "{{namespace}} {{run}} round {{round}} {{model}}",
                ),
            ),
            kind="map",
            columns=12,
            runbook="SealForgettingBudget",
            highest=1.0,
        ),
        Panel(
            title="What learning an edit costs",
            description="Retained score of the model before all rounds, minus that after an edit "
            "of each round is learnt. The line is for shares from 0 to 1, not for "
            "log-probabilities.",
            queries=(
                Query(
                    by_round(
                        f"(max by (namespace, run) ({_BEFORE}) "
                        f"- on (namespace, run) group_right () {_AFTER})",
                        "model",
                    )
                ),
            ),
            kind="rounds",
            columns=12,
            runbook="SealForgettingBudget",
            threshold=0.05,
        ),
    ),
)
_DIVERSITY = Row(
    "Diversity and outcomes",
    (
        Panel(
            title="Distinct n-grams in a context's edits",
            description="Different n-grams of words among all in the edits of one context, mean "
            "over contexts. Falling round by round is collapse: the policy repeats itself. A "
            "report's *different word pairs of all edits* are of all contexts together, and lower.",
            queries=(Query(by_round(latest("seal_run_distinct_ratio", OF_RUN), "stage", "n")),),
            kind="rounds",
            unit="percentunit",
            highest=1.0,
        ),
        Panel(
            title="Repeated edits",
            description="Share of edits that repeat an earlier one of their context.",
            queries=(Query(by_round(latest("seal_run_duplicate_edits_ratio", OF_RUN), "stage")),),
            kind="rounds",
            unit="percentunit",
            highest=1.0,
        ),
        Panel(
            title="Edit length",
            description="Mean length of an edit. Growing without end, or shrinking to nothing, "
            "goes before collapse.",
            queries=(Query(by_round(latest("seal_run_edit_tokens", OF_RUN), "stage")),),
            kind="rounds",
            unit="short",
        ),
        Panel(
            title="Edits kept and dropped",
            description="Edits of a round that the M-step learns, and why the others are not.",
            queries=(Query(by_round(latest("seal_run_edits", OF_RUN), "fate")),),
            kind="stacked rounds",
        ),
        Panel(
            title="Inner loops without a score",
            description="By outcome. They are in no mean; above the run's maxUnscoredShare it "
            "fails.",
            queries=(
                Query(
                    by_round(
                        latest("seal_run_inner_loops", f'{OF_RUN}, outcome!="ok"'),
                        "stage",
                        "outcome",
                    )
                ),
            ),
            kind="stacked rounds",
        ),
        Panel(
            title="Answers without a grade",
            description="Share of answers that could not be graded: a judge that is away or out "
            "of budget.",
            queries=(Query(by_round(latest("seal_run_ungraded_ratio", OF_RUN), "stage")),),
            kind="rounds",
            unit="percentunit",
            runbook="SealAnswersUngraded",
            threshold=0.1,
            highest=1.0,
        ),
    ),
)

LEARNING = Board(
    uid="seal-learning",
    title="SEAL learning health",
    description="Reward against held-out, forgetting, diversity: collapse and reward hacking.",
    variables=(NAMESPACE_OF_RUNS, RUN),
    rows=(_REWARD, _FORGETTING, _DIVERSITY),
)
