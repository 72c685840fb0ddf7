"""Rows by subject; the subjects are those of ``services``."""
