"""How train.py and scripts/ start a command, so that Ctrl-C and a closed pipe end it without a traceback at any moment.

This module imports next to nothing: it has to answer Ctrl-C while torch and Lightning load, which takes seconds.
"""

import contextlib
import os
import pkgutil
import signal
import sys


def entry(function: str, help_of: str = "", options_of: str = "") -> None:
    """Import a command and run it; it ends the process.

    The status is the command's own, 130 after Ctrl-C, and 141 (128 + SIGPIPE) where standard output was closed, as by `| head -1`.

    Args:
        function: `module:name` of the command.
        help_of: `train` or `benchmark`, where `--help` prints the keys of that configuration and not Hydra's page.
        options_of: the function in `irformer.commands.command_line` that describes the command's options, where it is not run by Hydra.
    """
    if help_of and {"-h", "--help"} & set(sys.argv[1:]):
        _print_help(help_of)
        return
    if options_of:  # --help and usage errors are answered before the command imports torch
        pkgutil.resolve_name(f"irformer.commands.command_line:{options_of}")().parse_args()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        # Nothing is open yet, and an exception in the middle of an import may be caught or printed by the module that is being imported.
        signal.signal(signal.SIGINT, lambda _signum, _frame: os._exit(128 + signal.SIGINT))
        command = pkgutil.resolve_name(function)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        command = pkgutil.resolve_name(function)
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        _discard_output()
        sys.exit(128 + 13)  # SIGPIPE, which Windows does not have


def _print_help(root: str) -> None:
    from irformer.core.folders import CONFIGS, config_packages, require_new_names, typed_config_dir
    from irformer.errors import UserError
    from irformer.schema.help import help_text

    try:
        typed = typed_config_dir(sys.argv[1:])
        further = [package.folder for package in config_packages()] + ([] if typed is None else [typed])
        require_new_names(further)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(help_text(root, CONFIGS, further))


def _discard_output() -> None:
    """Let the interpreter flush standard output into nothing when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def train() -> None:
    """`irformer-train`."""
    entry("irformer.commands.train:train", "train")


def benchmark() -> None:
    """`irformer-benchmark`."""
    entry("irformer.commands.benchmark:benchmark", "benchmark")


def compare() -> None:
    """`irformer-compare`."""
    entry("irformer.commands.compare:compare_runs", options_of="compare")


def restore() -> None:
    """`irformer-restore`."""
    entry("irformer.commands.restore:restore", options_of="restore")


def export() -> None:
    """`irformer-export`."""
    entry("irformer.commands.export:export", options_of="export")


def prepare_data() -> None:
    """`irformer-prepare-data`."""
    entry("irformer.commands.prepare_data:prepare_data", options_of="prepare_data")


def reproduce() -> None:
    """`irformer-reproduce`."""
    entry("irformer.commands.reproduce:reproduce", options_of="reproduce")


def speed() -> None:
    """`irformer-speed`."""
    entry("irformer.commands.speed:speed", options_of="speed")


def protocols() -> None:
    """`irformer-protocols`."""
    entry("irformer.commands.protocols:protocols", options_of="protocols")


def configuration() -> None:
    """`irformer-configuration`."""
    entry("irformer.commands.configuration:configuration", options_of="configuration")


def tables() -> None:
    """`irformer-tables`."""
    entry("irformer.commands.tables:tables", options_of="tables")
