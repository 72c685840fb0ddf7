"""Figures of docs/meter.md."""
