"""Every library of linear algebra keeps to one thread, also those that are loaded later."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, threading
from easeml_core.selection.blas_threads import one_thread
from threadpoolctl import threadpool_info

def numbers():
    return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

def other():
    with one_thread():
        found.append(numbers())
        is_inside.set()
        assert has_left.wait(60)
        found.append(numbers())

is_inside, has_left = threading.Event(), threading.Event()
with one_thread():
    import scipy.linalg
    found = [numbers()]
    thread = threading.Thread(target=other)
    thread.start()
    assert is_inside.wait(60)
has_left.set()
thread.join()
print(json.dumps([*found, numbers()]))
"""


def test_a_library_that_is_loaded_inside_keeps_to_one_thread_until_the_last_thread_has_left() -> None:
    environment = {"OPENBLAS_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    loaded_inside, of_another_thread, after_the_first, outside = json.loads(done.stdout)
    assert loaded_inside == [1, 1]  # numpy's and scipy's
    assert of_another_thread == after_the_first == [1, 1]
    assert outside == [2, 2]
