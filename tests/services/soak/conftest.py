"""The soak's own modules can be imported by its tests and by the processes that they start."""

from __future__ import annotations

collect_ignore = ["soak.py", "soak_book.py", "soak_people.py"]
