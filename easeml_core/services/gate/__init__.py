"""The gate: the decision on a submission by the sealed test set."""
