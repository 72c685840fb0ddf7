"""The whole life of a study, played through the pages of a running stack. ``scripts/demo_lifecycle.py`` tells it."""
