"""The study of a set of images: train, export, encode, cluster and find anomalies, and report it.

``ekmfast demo`` runs it on digits and faces, ``ekmfast study`` on the photos of a folder. It
computes all numbers of the report and writes them to ``metrics.json``.
"""

from ekmfast.study.chain import check_requirements, run
from ekmfast.study.data import StudyData, load_digits, load_photos
from ekmfast.study.report import write_report
from ekmfast.study.settings import QUICK, Settings, for_photos

__all__ = [
    "QUICK",
    "Settings",
    "StudyData",
    "check_requirements",
    "for_photos",
    "load_digits",
    "load_photos",
    "run",
    "write_report",
]
