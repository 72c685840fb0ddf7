"""What ``scripts/reference.py`` makes pages of: commands, classes, settings, errors, rights; a module each."""
