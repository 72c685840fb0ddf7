"""Former name of ``easeml_core.sandbox.probe``: processes that started before an upgrade use it."""

from __future__ import annotations

import sys

from easeml_core.sandbox.probe import main

if __name__ == "__main__":
    main(sys.argv[1:])
