"""A skip that continuous integration does not know fails it; a program that is absent is told."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("reason", "ci", "fails", "told"),
    [
        ("vLLM is not installed: make test-vllm", "1", False, ""),
        ("buf is not installed: put it on PATH", "1", False, "(absent)"),
        ("could not import 'peft'", "1", True, "(FAILURE"),
        ("could not import 'peft'", "", False, ""),
    ],
)
def test_a_skip_that_is_not_expected_fails_the_session(
    reason: str,
    ci: str,
    fails: bool,
    told: str,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEAL_CI", ci)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"import pytest\n\ndef test_it():\n    pytest.skip({reason!r})\n")
    ended = pytester.runpytest_inprocess("-p", "ci_skips")
    ended.assert_outcomes(skipped=1)
    assert ended.ret == (pytest.ExitCode.TESTS_FAILED if fails else pytest.ExitCode.OK)
    said = ended.stdout.str()
    assert ("NOT TESTED HERE" in said) == bool(told) and told in said
    assert "1 skipped" in said.splitlines()[-1], "the last line is pytest's"
