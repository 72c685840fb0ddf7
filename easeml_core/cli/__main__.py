"""``python -m easeml_core.cli``."""

from easeml_core.cli import main

main()
