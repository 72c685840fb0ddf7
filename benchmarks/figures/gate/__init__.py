"""Figures of docs/gate.md."""
