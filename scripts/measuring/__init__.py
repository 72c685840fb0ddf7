"""Mutations of the product and the tests that run them: what ``scripts/mutants.py`` is made of."""
