"""Metrics, scores, and their map to quality in [0, 1]."""
