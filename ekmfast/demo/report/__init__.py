"""The report of the demo: pictures, sentences and an HTML page, made from plain numbers."""

from ekmfast.demo.report.page import write_report

__all__ = ["write_report"]
