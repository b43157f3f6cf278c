"""The demo: train, export, encode, cluster and find anomalies, on small data.

``ekmfast demo`` runs it. It computes all numbers of the report and writes them to
``metrics.json``.
"""

from ekmfast.demo.chain import check_requirements, run
from ekmfast.demo.data import DemoData, load_data
from ekmfast.demo.report import write_report

__all__ = ["DemoData", "check_requirements", "load_data", "run", "write_report"]
