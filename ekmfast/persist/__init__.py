"""Estimators and detectors in files, without pickle."""
