"""Rows that arrive after registration: formats, files, canonical cells, matching."""
