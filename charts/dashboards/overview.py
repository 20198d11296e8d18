"""SEAL overview: what runs there are, how far they got, what they gained and what they cost."""

from __future__ import annotations

from charts.dashboards.board import (
    NAMESPACE_OF_RUNS,
    OF_RUN,
    RUN,
    Board,
    Panel,
    Query,
    Row,
    intervals,
)

_NOW = Row(
    "Now",
    (
        Panel(
            title="Controller leads",
            description="1 while a controller of the installation in this namespace leads; 0 or "
            "nothing means that no run gets on. On a laptop there is none.",
            queries=(Query("max by (namespace) (seal_controller_leading)", "{{namespace}}"),),
            kind="number",
            columns=4,
            runbook="SealControllerDown",
        ),
        Panel(
            title="Objects by phase",
            description="Runs and adaptations of the cluster. Failed ones say why in a condition.",
            queries=(Query("sum by (kind, phase) (seal_objects) > 0", "{{kind}} {{phase}}"),),
            kind="number",
            columns=10,
        ),
        Panel(
            title="Progress",
            description="Share of each run that is done. A flat line is a run that waits: see its "
            "condition Progressing.",
            queries=(
                Query(
                    f"max by (namespace, run) (seal_run_progress_ratio{{{OF_RUN}}})",
                    "{{namespace}} {{run}}",
                ),
            ),
            unit="percentunit",
            columns=10,
            runbook="SealRunStalled",
            highest=1.0,
        ),
    ),
)
_HELD_OUT = f'{OF_RUN}, stage="validate", kind="edit"'
_LEARNING = Row(
    "What is gained",
    (
        Panel(
            title="Held-out reward by round",
            description="Mean reward of validation contexts with the edits of each round, and its "
            "95 % interval: shares from 0 to 1, or log-probabilities with the grader logprob. A "
            "round has gained something if its interval lies above another's.",
            queries=(Query(intervals("seal_run_reward", _HELD_OUT)),),
            kind="rounds",
            columns=12,
            runbook="SealRewardFalling",
        ),
        Panel(
            title="Gain over the model alone",
            description="Mean over contexts of reward minus baseline, and its 95 % interval, of "
            "held-out contexts. An interval that holds 0 has shown nothing.",
            queries=(Query(intervals("seal_run_gain", f'{OF_RUN}, stage="validate"')),),
            kind="rounds",
            columns=12,
        ),
    ),
)
_COST = Row(
    "What it costs",
    (
        Panel(
            title="Engine seconds by stage",
            description="Seconds of engines that each run has taken so far.",
            queries=(
                Query(
                    f"sum by (namespace, run, stage) (seal_run_engine_seconds{{{OF_RUN}}})",
                    "{{namespace}} {{run}} {{stage}}",
                ),
            ),
            unit="s",
            kind="stacked",
        ),
        Panel(
            title="GPU seconds by stage",
            description="All of them, where the trainer computes on a GPU. None on CPUs.",
            queries=(
                Query(
                    f"sum by (namespace, run, stage) (seal_run_gpu_seconds{{{OF_RUN}}})",
                    "{{namespace}} {{run}} {{stage}}",
                ),
            ),
            unit="s",
            kind="stacked",
        ),
        Panel(
            title="Tokens by kind",
            description="Tokens generated, trained on and evaluated so far.",
            queries=(
                Query(
                    f"sum by (namespace, run, kind) (seal_run_tokens{{{OF_RUN}}})",
                    "{{namespace}} {{run}} {{kind}}",
                ),
            ),
            kind="stacked",
        ),
    ),
)

OVERVIEW = Board(
    uid="seal-overview",
    title="SEAL overview",
    description="Runs and adaptations: how far, what they gained, what they cost.",
    variables=(NAMESPACE_OF_RUNS, RUN),
    rows=(_NOW, _LEARNING, _COST),
)
