"""Trials: leases, execution, pruning, retries, and the worker that runs them one after another."""
