"""``python -m easeml_core.cli``."""

from easeml_core.cli import main

if __name__ == "__main__":  # processes of a simulation import the main module anew
    main()
