"""Former name of ``easeml_core.models.warm_child``: processes that started before an upgrade use it."""

from __future__ import annotations

import sys

from easeml_core.models.warm_child import main

if __name__ == "__main__":
    main(sys.argv[1:])
