"""The report of a run.

One data model (`report.json`) and one self-contained HTML page made from it, and from nothing else.
`build_report` reads what the run left behind, finished or not; `render_html` draws it and loads
matplotlib only then.
"""

from __future__ import annotations

from seal.report.numbers.build import build_report
from seal.report.numbers.model import Report
from seal.report.page.html import render_html

__all__ = ["Report", "build_report", "render_html"]
