"""Rows of a study: access to sources, feed, refine, refresh, and validation sets."""
