"""Ease.ml: which tenant is served next, and which candidate is trained for it. Functions of the observations."""
