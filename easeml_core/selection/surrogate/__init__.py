"""Surrogate models: priors, posteriors, and what other studies teach."""
