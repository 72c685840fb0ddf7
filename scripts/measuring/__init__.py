"""Measurements of a source tree, the working tree or any revision: what scripts/structure.py and others share."""
