"""The tests of programs share how random ones are made."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = ["fuzz_programs.py"]  # a script for atheris, which need not be installed
