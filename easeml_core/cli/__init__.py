"""The command line ``easeml``: arguments in, one service call, a table or JSON out."""

from __future__ import annotations


def main() -> None:
    """Run the console script; imports the commands only when they are needed."""
    try:
        from easeml_core.cli.app import cli

        cli(prog_name="easeml")
    except KeyboardInterrupt:  # while loading or ending; otherwise the commands' own group handles it
        raise SystemExit(130) from None
