"""Rows on a CUDA device."""
