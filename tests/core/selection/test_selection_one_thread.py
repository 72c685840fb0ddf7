"""Every library of linear algebra keeps to one thread, also those that are loaded later."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LOADED_INSIDE = """
import json
from easeml_core.selection.blas_threads import one_thread
with one_thread():
    import scipy.linalg
    from threadpoolctl import threadpool_info
    print(json.dumps([i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]))
"""


TWO_AT_A_TIME = """
import json, threading
import scipy.linalg
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

found, is_inside, has_left = [], threading.Event(), threading.Event()
with one_thread():
    thread = threading.Thread(target=other)
    thread.start()
    assert is_inside.wait(60)
has_left.set()
thread.join()
print(json.dumps([*found, numbers()]))
"""


def test_a_library_that_is_loaded_inside_keeps_to_one_thread_too() -> None:
    threads = _printed_by(LOADED_INSIDE)
    assert len(threads) == 2  # numpy's and scipy's
    assert threads == [1, 1]


def test_it_holds_in_each_thread_until_the_last_one_has_left() -> None:
    inside, after_the_first, outside = _printed_by(TWO_AT_A_TIME)
    assert inside == after_the_first == [1, 1]
    assert outside == [2, 2]


def _printed_by(program: str) -> list[Any]:
    environment = {"OPENBLAS_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))
