"""The report of the demo: its pictures, its sentences and its page, from plain numbers."""

from ekmfast.demo.report.page import write_report

__all__ = ["write_report"]
