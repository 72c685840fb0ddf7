"""Runs of submitted models on sealed examples, isolated and padded in time."""
