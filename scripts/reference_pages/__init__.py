"""The pages of ``scripts/reference.py``."""
