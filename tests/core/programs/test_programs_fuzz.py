"""A minute of coverage-guided fuzzing, where atheris is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SEEDS = [
    "{input: {[Tensor[256,256,3]], []}, output: {[x :: Category[3]], [next]}}",
    "{[Tensor[A,...]+, ...], [a, ...]}",
    'input: {nodes: {n: {fields: {x: {type: tensor, dim: ["a?", 3]}}, links: {n: [0, inf]}}}}\n'
    "output: {nodes: {y: {singleton: true, type: category, class: k}}, classes: {k: {dim: 3}}}",
    "nodes: {n: {links: {n: 1}}}\nref-constraints: {cyclic: true, undirected: true, fan-in: true}",
]


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_minute_of_fuzzing_finds_nothing(tmp_path):
    for k, text in enumerate(SEEDS):
        (tmp_path / f"seed{k}").write_text(text, encoding="utf-8")
    script = Path(__file__).with_name("fuzz_programs.py")
    limits = ["-max_total_time=60", "-max_len=2000", "-timeout=20", "-rss_limit_mb=2048", "-seed=1"]
    done = subprocess.run(
        [sys.executable, str(script), *limits, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
