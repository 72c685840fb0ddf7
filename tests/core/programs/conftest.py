"""The tests of programs share how random ones are made."""

from __future__ import annotations

collect_ignore = ["fuzz_programs.py"]  # a script for atheris, which need not be installed
