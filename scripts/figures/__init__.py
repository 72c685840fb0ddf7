"""What `scripts/selection_figures.py` is made of: tables prepared, commands run, answers turned into Markdown."""
