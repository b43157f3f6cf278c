"""Readers of tables and image files."""
