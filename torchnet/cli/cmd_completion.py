"""``torchnet completion SHELL``: print the script with which a shell completes commands and flags.

The script runs ``torchnet`` with `VARIABLE` in its environment, and typer prints the completions
(`torchnet.cli.app.parse`). Rejected: typer's ``--install-completion`` and ``--show-completion``, which would import
pydantic and add 0.1 s to every command.
"""

from __future__ import annotations

from functools import partial

import typer

from torchnet.cli.entry_point import emit
from torchnet.cli.typer_parameters import PlainCommand
from torchnet.errors import UsageError

VARIABLE = "_TORCHNET_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
HELP = """\
Print a script that completes commands and flags in SHELL: bash, zsh or fish.

\b
bash, in ~/.bashrc:                  source <(torchnet completion bash)
zsh, in ~/.zshrc, after compinit:    source <(torchnet completion zsh)
fish, in ~/.config/fish/config.fish: torchnet completion fish | source
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "completion",
        cls=PlainCommand,
        help=HELP,
        short_help="Print a shell completion script.",
        options_metavar="SHELL",
        context_settings={"allow_extra_args": True},
    )(_completion)


def _completion(context: typer.Context) -> None:
    context.obj.action = partial(run, list(context.args))


def run(words: list[str]) -> int:
    """Print the script, and return the exit code."""
    from typer.completion import get_completion_script

    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(
            f"exactly one SHELL is required: {', '.join(SHELLS)}", fix="torchnet completion --help"
        )
    emit(get_completion_script(prog_name="torchnet", complete_var=VARIABLE, shell=words[0]) + "\n")
    return 0
