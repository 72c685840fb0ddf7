"""Figures of docs/selection.md."""
