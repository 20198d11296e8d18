"""Who pays for a failure: nobody but its cause. One row for each kind, and the tests that hold it.

docs/concepts.md shows this table; `python -m seal.failures` prints it as it should stand there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One kind of failure."""

    happened: str
    becomes: str
    """What the caller, the run or the operator sees of it."""
    retried: str
    """Whether, and by whom."""
    tests: tuple[str, ...]
    """What proves it: `file::function` of tests."""


FAILURES = (
    Failure(
        happened="an item's own content: an edit that parses to nothing, a row that is too long "
        "for the engine, an adapter without effect, NaN logits, out of memory although alone",
        becomes="that item's outcome (`invalid`, `too_long`, `inert`, `diverged`, `refused`), "
        "counted, reported, in no mean; it is the result of a call, never its error",
        retried="no",
        tests=(
            "tests/services/test_trainer_svc.py::"
            "test_a_training_whose_own_content_is_at_fault_has_that_outcome_which_is_final",
            "tests/services/test_generator_svc.py::"
            "test_a_context_at_fault_has_an_outcome_and_the_others_get_their_edits",
            "tests/services/test_evaluator_svc.py::"
            "test_a_query_that_is_too_long_has_an_outcome_and_the_others_are_graded",
            "tests/services/test_evaluator_svc.py::"
            "test_an_adapter_that_leaves_the_logits_as_they_are_is_inert_and_has_no_score",
            "tests/services/test_evaluator_svc.py::"
            "test_an_adapter_that_makes_the_logits_no_numbers_has_diverged_and_has_no_score",
            "tests/services/test_evaluator_svc.py::"
            "test_an_evaluation_that_fails_by_its_own_fault_has_that_outcome",
            "tests/services/test_services_engine.py::"
            "test_what_is_too_long_for_the_model_costs_its_own_item_alone",
            "tests/worker/test_worker.py::"
            "test_a_passage_that_the_generator_finds_at_fault_has_its_outcome_and_its_edits_have_"
            "not",
            "tests/worker/test_worker.py::"
            "test_a_training_at_fault_is_that_inner_loops_outcome_and_is_not_evaluated",
            "tests/worker/test_worker.py::"
            "test_an_evaluation_at_fault_is_that_inner_loops_outcome_and_in_no_mean",
            "tests/worker/test_worker.py::"
            "test_an_edit_that_parses_to_nothing_is_invalid_and_neither_trained_nor_averaged",
            "tests/worker/test_worker_improve.py::"
            "test_an_edit_too_long_to_be_learnt_leaves_its_place_to_the_next_best_and_is_counted",
        ),
    ),
    Failure(
        happened="a step of a batch fails in company",
        becomes="nothing for the others: each is run again, the suspects apart, and who fails "
        "alone is the cause",
        retried="by the engine, once",
        tests=(
            "tests/engine/test_engine_faults.py::test_one_failure_in_company_ends_nobody",
            "tests/engine/test_engine_faults.py::test_a_training_that_fails_even_alone_is_refused_"
            "and_the_others_are_trained_as_alone",
            "tests/engine/test_engine_faults.py::test_an_evaluation_that_fails_even_alone_is_"
            "refused_and_the_others_are_answered_as_alone",
            "tests/engine/test_engine_faults.py::test_a_generation_that_fails_even_alone_is_"
            "refused_and_the_others_are_written_as_alone",
            "tests/engine/test_engine_faults.py::test_logits_that_are_not_numbers_are_the_outcome_"
            "of_their_own_request",
        ),
    ),
    Failure(
        happened="the engine is broken: its thread dead, a CUDA error that stays, no pass for "
        "`stall_seconds` while work waits",
        becomes="health NOT_SERVING, UNAVAILABLE for every caller, and the end of the process with "
        "exit code 43",
        retried="elsewhere, by the caller",
        tests=(
            "tests/engine/test_engine_health.py::"
            "test_an_engine_whose_step_never_ends_is_broken_and_nobody_waits_for_it",
            "tests/engine/test_engine_health.py::test_an_engine_whose_thread_has_ended_is_broken",
            "tests/engine/test_engine_faults.py::test_a_cuda_error_that_stays_breaks_the_engine_"
            "and_one_that_passes_does_not",
            "tests/rpc/test_lifecycle.py::test_a_broken_engine_is_not_serving_and_ends_the_process_"
            "with_an_error_worth_a_retry",
            "tests/services/test_trainer_svc.py::"
            "test_a_stream_falls_silent_when_the_engine_shows_no_life",
            "tests/services/test_service_commands.py::"
            "test_a_process_whose_engine_thread_dies_says_not_serving_and_ends_with_43",
        ),
    ),
    Failure(
        happened="a queue is full",
        becomes="a wait in line, with jitter, as long as the caller's deadline allows; only who "
        "has no time left is refused (RESOURCE_EXHAUSTED, and when to come back)",
        retried="by the service, while it waits; it is no attempt",
        tests=(
            "tests/services/test_trainer_svc.py::"
            "test_a_full_queue_makes_the_caller_wait_in_line_and_speaks_while_it_waits",
            "tests/services/test_trainer_svc.py::"
            "test_who_waits_for_a_full_queue_is_served_in_the_order_of_coming",
            "tests/services/test_trainer_svc.py::"
            "test_only_a_caller_without_time_left_hears_of_a_full_queue_and_when_to_come_back",
            "tests/services/test_generator_svc.py::test_a_generation_that_meets_a_full_queue_waits",
            "tests/worker/test_worker.py::"
            "test_a_full_queue_or_an_absent_service_is_waited_for_and_costs_no_attempt",
        ),
    ),
    Failure(
        happened="store or judge away: EIO, ESTALE, 5xx, timeouts",
        becomes="UNAVAILABLE; without a judge the answer is `ungraded`",
        retried="by the caller",
        tests=(
            "tests/services/test_evaluator_svc.py::"
            "test_what_could_not_be_graded_is_counted_and_not_averaged",
            "tests/services/test_judge.py::test_without_a_readable_verdict_an_answer_is_ungraded_"
            "and_neither_wrong_nor_zero",
            "tests/store/test_store_errors.py::"
            "test_a_volume_that_is_away_is_transient_and_never_an_absent_file",
            "tests/store/test_store_errors.py::"
            "test_an_endpoint_that_is_away_is_transient_and_never_an_absent_object",
            "tests/store/test_store_errors.py::test_a_reply_of_an_object_store_has_its_class",
            "tests/local/test_local.py::"
            "test_a_shard_that_fails_transiently_is_tried_again_and_takes_up_its_own_work",
            "tests/local/test_local.py::"
            "test_a_stage_whose_shards_gave_up_is_started_again_and_what_is_done_stays_done",
        ),
    ),
    Failure(
        happened="too few scores are left: a larger share of the inner loops than the settings "
        "allow (one half) has no score",
        becomes="the end of the run, with condition `TooFewScores` and the outcomes' counts",
        retried="no",
        tests=(
            "tests/core/test_core_decide.py::"
            "test_too_few_scores_end_the_run_and_the_condition_counts_the_outcomes",
        ),
    ),
)
"""Every failure that is no defect is one of these."""


def markdown() -> str:
    """The table for docs/concepts.md."""
    lines = ["| what happened | what it becomes | retried | tests |", "|---|---|---|---|"]
    for row in FAILURES:
        tests = "<br>".join(f"`{test.partition('::')[2]}`" for test in row.tests)
        lines.append(f"| {row.happened} | {row.becomes} | {row.retried} | {tests} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
