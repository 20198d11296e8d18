"""Every metric of every process, registered in one registry.

Prefix `seal_`, base units, `_total` on counters only, no ids in labels. What carries the name of a
run is kept apart (`seal.run_metrics`), because it goes away with its run. The metrics of gRPC
servers keep the names that the ecosystem's dashboards expect. docs/metrics.md lists all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from seal.run_metrics import RunMetrics

GRPC_LABELS = ("grpc_type", "grpc_service", "grpc_method")
CALL_BUCKETS_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
"""A health check takes milliseconds, an M-step on a CPU many minutes."""
RECONCILE_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
"""A look at an object is a few requests to the API server, each of milliseconds."""
STEP_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A step of a small model on a GPU takes milliseconds, an evaluation on a CPU many seconds."""
WAIT_BUCKETS_SECONDS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
"""An idle engine takes work at once, a busy one after the work of all other runs."""


@dataclass(frozen=True)
class Described:
    """One metric, as documentation lists it."""

    name: str
    """As Prometheus stores it."""
    type: str
    """counter, gauge or histogram."""
    labels: tuple[str, ...]
    help: str


class Families:
    """Registers metrics, and remembers what it has registered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.described: list[Described] = []

    def counter(self, name: str, help: str, *labels: str) -> Counter:
        """A counter; the client library adds `_total` to the name of its samples."""
        self.described.append(Described(f"{name}_total", "counter", labels, help))
        return Counter(name, help, labels, registry=self._registry)

    def gauge(self, name: str, help: str, *labels: str) -> Gauge:
        """A gauge."""
        self.described.append(Described(name, "gauge", labels, help))
        return Gauge(name, help, labels, registry=self._registry)

    def histogram(
        self, name: str, help: str, *labels: str, buckets: tuple[float, ...]
    ) -> Histogram:
        """A histogram; `buckets` are upper bounds."""
        self.described.append(Described(name, "histogram", labels, help))
        return Histogram(name, help, labels, buckets=buckets, registry=self._registry)


class EngineMetrics:
    """The engine and the services around it."""

    def __init__(self, make: Families) -> None:
        self.trainings = make.counter(
            "seal_trainings", "Trainings that the trainer ended, by outcome.", "outcome"
        )
        self.training_steps = make.counter(
            "seal_training_steps", "Optimiser steps done, summed over slots."
        )
        self.trained_tokens = make.counter(
            "seal_trained_tokens", "Tokens of training rows, counted in every epoch."
        )
        self.generated_tokens = make.counter(
            "seal_generated_tokens", "Tokens sampled or decoded, answers included."
        )
        self.engine_busy_seconds = make.counter(
            "seal_engine_busy_seconds",
            "Seconds that the engine worked, by kind (train, generate, evaluate) and by the type "
            "of its device (cpu, cuda): those of cuda are GPU seconds.",
            "kind",
            "device",
        )
        self.engine_step_seconds = make.histogram(
            "seal_engine_step_seconds",
            "Seconds of one piece of the engine's work, by kind: a training step of all slots, a "
            "token of all rows, a batch of evaluations.",
            "kind",
            buckets=STEP_BUCKETS_SECONDS,
        )
        self.engine_queue_length = make.gauge(
            "seal_engine_queue_length",
            "Requests that wait for the engine, by kind: train, generate, evaluate.",
            "kind",
        )
        self.engine_queue_wait_seconds = make.histogram(
            "seal_engine_queue_wait_seconds",
            "Seconds that a request waited for the engine before it was begun, by kind.",
            "kind",
            buckets=WAIT_BUCKETS_SECONDS,
        )
        self.engine_requests = make.counter(
            "seal_engine_requests",
            "Requests that the engine ended, by kind and outcome (ok, diverged for NaN, refused "
            "for want of memory, inert, too_long, cancelled; failed: to be sent again).",
            "kind",
            "outcome",
        )
        self.engine_slots = make.gauge(
            "seal_engine_slots", "Adapters that the engine trains at once."
        )
        self.engine_slots_in_use = make.gauge("seal_engine_slots_in_use", "Adapters in training.")
        self.engine_memory_bytes = make.gauge(
            "seal_engine_memory_bytes",
            "Bytes that the engine's process holds: allocated on the GPU, or resident on a CPU, "
            "Python and libraries included.",
        )
        self.engine_memory_estimate_bytes = make.gauge(
            "seal_engine_memory_estimate_bytes",
            "Bytes that it would hold at most with adapters of the default rank and targets, by "
            "the memory model: beside what it held without the model when it started.",
        )
        self.engine_memory_limit_bytes = make.gauge(
            "seal_engine_memory_limit_bytes",
            "Bytes that it would hold if the engine took all that it may. Adapters of an M-step "
            "may go beyond the estimate, nothing beyond this.",
        )
        self.waiting_calls = make.gauge(
            "seal_waiting_calls",
            "Calls that wait because the engine's queue is full, by kind.",
            "kind",
        )


class LearningMetrics:
    """What the stages of runs and adaptations came to, told by whoever leads them.

    Counted when a stage has ended: the pods of Jobs end before anybody scrapes them, so their
    numbers travel in the summaries.
    """

    def __init__(self, make: Families) -> None:
        self.inner_loops = make.counter(
            "seal_inner_loops", "Inner loops that ended, by outcome.", "outcome"
        )
        self.edits_kept = make.counter("seal_edits_kept", "Edits that an M-step was to learn.")
        self.edits_dropped = make.counter(
            "seal_edits_dropped", "Edits that an M-step was not to learn, by reason.", "reason"
        )
        self.answers = make.counter(
            "seal_answers",
            "Answers of adapted models to held-out questions, by grade: graded, ungraded.",
            "grade",
        )
        self.stage_tokens = make.counter(
            "seal_stage_tokens",
            "Tokens that stages took, by stage and kind: generate, train, evaluate.",
            "stage",
            "kind",
        )
        self.stage_engine_seconds = make.counter(
            "seal_stage_engine_seconds",
            "Engine seconds that stages took, by stage and kind: generate, train, evaluate, "
            "improve.",
            "stage",
            "kind",
        )
        self.stage_gpu_seconds = make.counter(
            "seal_stage_gpu_seconds",
            "All of them where the trainer computes on a GPU, by stage and kind.",
            "stage",
            "kind",
        )
        self.transitions = make.counter(
            "seal_transitions",
            "What became of runs and adaptations, by kind and reason.",
            "kind",
            "reason",
        )


class ControllerMetrics:
    """The controller and the front door."""

    def __init__(self, make: Families) -> None:
        self.adaptations = make.gauge(
            "seal_adaptations",
            "Adaptations, by state; each replica of the front door shows all of them.",
            "state",
        )
        self.adaptations_submitted = make.counter(
            "seal_adaptations_submitted", "Adaptations that were accepted."
        )
        self.adaptations_ended = make.counter(
            "seal_adaptations_ended", "Adaptations that ended, by state.", "state"
        )
        self.reconciles = make.counter(
            "seal_reconciles",
            "Looks of the controller at an object, by kind and result: ok, error.",
            "kind",
            "result",
        )
        self.reconcile_seconds = make.histogram(
            "seal_reconcile_seconds",
            "Seconds that a look at an object took, by kind.",
            "kind",
            buckets=RECONCILE_BUCKETS_SECONDS,
        )
        self.api_requests = make.counter(
            "seal_api_requests",
            "Requests to the API server, by verb and resource.",
            "verb",
            "resource",
        )
        self.events = make.counter(
            "seal_events",
            "Events of Kubernetes, by what became of them: posted; joined, as the next one tells "
            "both; refused by the API server; dropped as too many waited, or at the controller's "
            "end.",
            "outcome",
        )
        self.controller_queue_length = make.gauge(
            "seal_controller_queue_length",
            "Objects that the controller is to look at, now or later.",
        )
        self.controller_leading = make.gauge(
            "seal_controller_leading", "1 while this controller leads, else 0."
        )
        self.namespace_refused = make.gauge(
            "seal_namespace_refused",
            "1 while the API server refuses to list a namespace that is to be served, else 0.",
            "namespace",
        )
        self.objects = make.gauge(
            "seal_objects", "Runs and adaptations, by kind and phase.", "kind", "phase"
        )


class CallMetrics:
    """Every gRPC server, under the ecosystem's names."""

    def __init__(self, make: Families) -> None:
        self.grpc_started = make.counter(
            "grpc_server_started", "RPCs started on the server.", *GRPC_LABELS
        )
        self.grpc_handled = make.counter(
            "grpc_server_handled",
            "RPCs completed on the server, by code.",
            *GRPC_LABELS,
            "grpc_code",
        )
        self.grpc_handling_seconds = make.histogram(
            "grpc_server_handling_seconds",
            "Seconds until the server had completed an RPC.",
            *GRPC_LABELS,
            buckets=CALL_BUCKETS_SECONDS,
        )


class Metrics(EngineMetrics, LearningMetrics, ControllerMetrics, CallMetrics):
    """All of them."""

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives seconds: runs that have ended are shown for a while."""
        self.registry = registry
        make = Families(registry)
        for part in Metrics.__bases__:
            part.__init__(self, make)  # type: ignore[misc]
        self.runs = RunMetrics(clock=clock)
        registry.register(self.runs)


def _process_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


metrics = Metrics(_process_registry())
"""The metrics of this process."""
