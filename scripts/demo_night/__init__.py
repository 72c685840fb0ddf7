"""One night of the demo, on a stack that is up: register, retrain, release, report. ``scripts/demo.py`` runs it."""
