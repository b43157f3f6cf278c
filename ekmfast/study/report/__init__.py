"""The report of the study: pictures, sentences and an HTML page, made from plain numbers."""

from ekmfast.study.report.page import write_report

__all__ = ["write_report"]
