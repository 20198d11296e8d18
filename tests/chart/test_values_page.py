"""charts/seal/README.md is what values.yaml says of itself."""

from __future__ import annotations

import yaml
from chart import CHART

from charts.values_page import Value, values, values_page

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
SMALL = """# Of the file, and of no value.

# A group.
group:
  # Of a value,
  # in two lines.
  one: 1
  # No more the comment of the next.

  two: {}
  # Kubernetes' own.
  resources:
    limits: {cpu: 2}
three: [a | b]
"""


def test_the_page_is_current() -> None:
    shown = (CHART / "README.md").read_text(encoding="utf-8")
    assert shown == values_page(TEXT), "run `make chart-docs` and commit what it changes"


def test_a_comment_belongs_to_the_value_right_below_it() -> None:
    assert list(values(SMALL)) == [
        Value("group", "A group.", None),
        Value("group.one", "Of a value, in two lines.", "1"),
        Value("group.two", "", "{}"),
        Value("group.resources", "Kubernetes' own.", '{"limits": {"cpu": 2}}'),
        Value("three", "", '["a | b"]'),
    ]
    assert r'| `three` | `["a \| b"]` |' in values_page(SMALL)


def test_every_value_is_explained() -> None:
    assert not [value.path for value in values(TEXT) if not value.said]


def test_no_value_is_left_out() -> None:
    listed = {value.path: value.default for value in values(TEXT)}
    assert {path.partition(".")[0] for path in listed} == yaml.safe_load(TEXT).keys()
    assert listed["jobs.trainer.engine"] == "{}"
