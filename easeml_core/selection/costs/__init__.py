"""Costs of candidates in seconds: the model, its fit, and reports."""
