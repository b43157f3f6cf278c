"""Rows whose statistics a GPU computes."""
