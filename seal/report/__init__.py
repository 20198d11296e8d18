"""The report of a run: one data model (`report.json`) and one self-contained HTML page made from it, and from nothing else.

`build_report` reads what the run left behind, finished or not; `render_html` draws it and loads matplotlib only then.
"""

from __future__ import annotations

from seal.report.build import build_report
from seal.report.html import render_html
from seal.report.model import Report

__all__ = ["Report", "build_report", "render_html"]
