"""Engine and services: throughput, saturation, latency and errors, as an SRE looks for them."""

from __future__ import annotations

from charts.dashboards.board import Board, Panel, Query, Row, Variable

_INSTALLATION = Variable(
    name="installation", label="Namespace", query="label_values(seal_engine_slots, namespace)"
)
"""That of the pods. Links between dashboards hand variables on by name, and the other dashboards'
`namespace` is that of runs."""
_OURS = 'namespace=~"$installation"'
_RATE = "$__rate_interval"


def _quantile(share: float, metric: str, by: str) -> str:
    rate = f"rate({metric}_bucket{{{_OURS}}}[{_RATE}])"
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate}))"


_THROUGHPUT = Row(
    "Throughput",
    (
        Panel(
            title="Tokens a second",
            description="Tokens of training rows, each epoch counted, and tokens generated, "
            "answers included.",
            queries=(
                Query(
                    f"sum by (instance) (rate(seal_trained_tokens_total{{{_OURS}}}[{_RATE}]))",
                    "{{instance}} trained",
                ),
                Query(
                    f"sum by (instance) (rate(seal_generated_tokens_total{{{_OURS}}}[{_RATE}]))",
                    "{{instance}} generated",
                ),
            ),
            unit="suffix: tok/s",
        ),
        Panel(
            title="Trainings a second, by outcome",
            description="Adapters that the trainer ended. `ok` are scores to come; the others are "
            "in no mean, and a run of too many of them fails.",
            queries=(
                Query(
                    f"sum by (outcome) (rate(seal_trainings_total{{{_OURS}}}[{_RATE}]))",
                    "{{outcome}}",
                ),
            ),
            unit="ops",
        ),
        Panel(
            title="Step time",
            description="Half of the engine's steps take no longer than p50, all but one in "
            "a hundred no longer than p99.",
            queries=(
                Query(_quantile(0.5, "seal_engine_step_seconds", "kind"), "{{kind}} p50"),
                Query(_quantile(0.99, "seal_engine_step_seconds", "kind"), "{{kind}} p99"),
            ),
            unit="s",
        ),
    ),
)
_SATURATION = Row(
    "Saturation",
    (
        Panel(
            title="Slots in use",
            description="Share of the trainer's LoRA slots that train. 1 for long, together with "
            "a queue, means that another trainer would be used.",
            queries=(
                Query(
                    f"sum by (instance) (seal_engine_slots_in_use{{{_OURS}}}) / "
                    f"(sum by (instance) (seal_engine_slots{{{_OURS}}}) > 0)",
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
            runbook="SealEngineSaturated",
            highest=1.0,
        ),
        Panel(
            title="Queue and waiting calls",
            description="Requests that wait for the engine, and calls that wait because its queue "
            "is full.",
            queries=(
                Query(
                    f"sum by (instance, kind) (seal_engine_queue_length{{{_OURS}}})",
                    "{{instance}} {{kind}}",
                ),
                Query(
                    f"sum by (instance, kind) (seal_waiting_calls{{{_OURS}}})",
                    "{{instance}} {{kind}} not queued",
                ),
            ),
            runbook="SealEngineSaturated",
        ),
        Panel(
            title="Queue wait",
            description="How long requests waited for the engine before they were begun.",
            queries=(
                Query(_quantile(0.5, "seal_engine_queue_wait_seconds", "kind"), "{{kind}} p50"),
                Query(_quantile(0.9, "seal_engine_queue_wait_seconds", "kind"), "{{kind}} p90"),
            ),
            unit="s",
            runbook="SealEngineSaturated",
            threshold=60.0,
        ),
        Panel(
            title="Engine busy",
            description="Share of the time in which the engine works, by kind of work. What is "
            "left of 1 it waits for requests.",
            queries=(
                Query(
                    "sum by (instance, kind) "
                    f"(rate(seal_engine_busy_seconds_total{{{_OURS}}}[{_RATE}]))",
                    "{{instance}} {{kind}}",
                ),
            ),
            unit="percentunit",
            kind="stacked",
            columns=12,
        ),
        Panel(
            title="Memory against its estimate",
            description="What the engine's process holds; what it would at most with adapters of "
            "the default rank and targets, by the memory model; and if the engine took all that "
            "it may. Python and libraries are in all three. An M-step may go beyond the estimate "
            "and not beyond the limit: size a pod by the most that a whole run has held. vLLM says "
            "nothing of its memory here.",
            queries=tuple(
                Query(f"seal_engine_memory{part}_bytes{{{_OURS}}} > 0", f"{{{{instance}}}} {name}")
                for part, name in (("", "held"), ("_estimate", "estimate"), ("_limit", "limit"))
            ),
            unit="bytes",
            columns=12,
        ),
    ),
)
_CALLS = Row(
    "Calls",
    (
        Panel(
            title="Calls a second",
            description="Calls that each service completed.",
            queries=(
                Query(
                    "sum by (grpc_service, grpc_method) "
                    f"(rate(grpc_server_handled_total{{{_OURS}}}[{_RATE}]))",
                    "{{grpc_service}}/{{grpc_method}}",
                ),
            ),
            unit="ops",
        ),
        Panel(
            title="Calls that failed, by code",
            description="Internal, Unknown and DataLoss are defects; Unavailable is tried again by "
            "clients; InvalidArgument and NotFound are the caller's.",
            queries=(
                Query(
                    "sum by (grpc_service, grpc_code) "
                    f'(rate(grpc_server_handled_total{{{_OURS}, grpc_code!="OK"}}[{_RATE}]))',
                    "{{grpc_service}} {{grpc_code}}",
                ),
            ),
            unit="ops",
            runbook="SealServiceErrors",
        ),
        Panel(
            title="Latency p99",
            description="All but one in a hundred calls take no longer. A training is one call.",
            queries=(
                Query(
                    _quantile(0.99, "grpc_server_handling_seconds", "grpc_service, grpc_method"),
                    "{{grpc_service}}/{{grpc_method}}",
                ),
            ),
            unit="s",
        ),
    ),
)
_CONTROLLER = Row(
    "Controller",
    (
        Panel(
            title="Looks",
            description="How long the controller takes to look at an object.",
            queries=(
                Query(_quantile(0.5, "seal_reconcile_seconds", "kind"), "{{kind}} p50"),
                Query(_quantile(0.99, "seal_reconcile_seconds", "kind"), "{{kind}} p99"),
            ),
            unit="s",
        ),
        Panel(
            title="Looks in vain",
            description="Looks that ended with an error: the API server or the store is away, or "
            "an object cannot be looked after. Its condition says why.",
            queries=(
                Query(
                    "sum by (kind, result) "
                    f'(rate(seal_reconciles_total{{{_OURS}, result!="ok"}}[{_RATE}]))',
                    "{{kind}} {{result}}",
                ),
            ),
            unit="ops",
            runbook="SealControllerDown",
        ),
        Panel(
            title="Requests to the API server",
            description="By verb and resource, watch-streams apart.",
            queries=(
                Query(
                    f"sum by (verb, resource) (rate(seal_api_requests_total{{{_OURS}}}[{_RATE}]))",
                    "{{verb}} {{resource}}",
                ),
            ),
            unit="ops",
        ),
    ),
)

ENGINE = Board(
    uid="seal-engine",
    title="SEAL engine and services",
    description="Throughput, saturation, latency and errors of engines, services and controller.",
    variables=(_INSTALLATION,),
    rows=(_THROUGHPUT, _SATURATION, _CALLS, _CONTROLLER),
)
