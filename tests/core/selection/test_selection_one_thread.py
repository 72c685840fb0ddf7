"""Every library of linear algebra keeps to one thread, also those that are loaded later."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
from easeml_core.selection.blas_threads import one_thread
with one_thread():
    import scipy.linalg
    from threadpoolctl import threadpool_info
    print(json.dumps([i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]))
"""


def test_a_library_that_is_loaded_inside_keeps_to_one_thread_too() -> None:
    environment = {"OPENBLAS_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    threads = json.loads(done.stdout)
    assert len(threads) == 2  # numpy's and scipy's
    assert threads == [1, 1]
