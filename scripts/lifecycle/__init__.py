"""The chapters of ``scripts/demo_lifecycle.py``: the life of a study, played through the pages of a running stack."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # figures.gate.cifar reads the predictions
