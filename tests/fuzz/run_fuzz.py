"""``make fuzz``: let atheris search for inputs that a reader fails on, guided by the code that they reach.

Each target runs in a process of libFuzzer's. What is new and reaches other code is kept in ``build/fuzz/NAME``; an
input that fails is written to ``build/fuzz/found`` and printed. Put it into ``tests/fuzz/corpora/NAME`` with the
repair: the ordinary tests try each input there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "fuzz"


def _search(name: str, seconds: int) -> int:
    """Fuzz one target in a child; return its exit status."""
    kept, found = BUILD / name, BUILD / "found"
    kept.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/{name}-", "-timeout=20", "-rss_limit_mb=3000"]
    options += ["-print_final_stats=1", "-verbosity=0", "-max_len=65536"]
    command = [sys.executable, __file__, "--child", name, *options, str(kept), str(HERE / "corpora" / name)]
    return subprocess.run(command, cwd=HERE, check=False).returncode


def _child(name: str, arguments: list[str]) -> None:
    """Run libFuzzer on one target, until it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["easeml_core"]):
        from fuzz_targets import try_one
    atheris.Setup([sys.argv[0], *arguments], lambda content: try_one(name, content))
    atheris.Fuzz()


def main() -> int:
    """Fuzz the chosen targets one after the other; 1 where an input was found that one fails on."""
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3:])
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; one of {', '.join(TARGETS)}")
    failed = []
    for name in options.targets or TARGETS:
        print(f"== {name}, {options.seconds} s", flush=True)
        if _search(name, options.seconds) != 0:
            failed.append(name)
    print(f"failed: {', '.join(failed)}; the inputs are in {BUILD / 'found'}" if failed else "nothing was found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
