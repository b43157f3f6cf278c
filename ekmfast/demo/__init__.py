"""The whole chain on small data: train, export, encode, cluster, look, tell anomalies.

``ekmfast demo`` runs it. Every number in the report comes from here, through ``metrics.json``.
"""

from ekmfast.demo.chain import check_requirements, run
from ekmfast.demo.data import DemoData, load_data
from ekmfast.demo.report import write_report

__all__ = ["DemoData", "check_requirements", "load_data", "run", "write_report"]
