"""``easeml completion``: the script by which a shell completes commands, options and names of studies."""

from __future__ import annotations

import click

from easeml_core.cli.output import example, json_option, show_json

SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "easeml", "_EASEML_COMPLETE"


@click.command(
    epilog=example(
        "easeml completion bash > ~/.local/share/bash-completion/completions/easeml",
        "easeml completion zsh > ~/.zfunc/_easeml",
        "easeml completion fish > ~/.config/fish/completions/easeml.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that lets SHELL complete commands, options and names of studies.

    Names come from the database where it answers at once, else none are offered.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:  # click has all of SHELLS; a later one may not
        message = f"click knows no completion for {shell}"
        raise click.UsageError(message)
    # `source` of click's own class asks the shell for its version first, and complains where there is none.
    made = kind(context.find_root().command, {}, PROGRAM, VARIABLE)
    script = made.source_template % made.source_vars()
    show_json({"shell": shell, "script": script}) if as_json else click.echo(script, nl=False)
