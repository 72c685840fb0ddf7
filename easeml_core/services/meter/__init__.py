"""The meter: readings on a validation set, their results, history, plans and alerts."""
