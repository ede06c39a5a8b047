"""Entry points of train.py, scripts/ and the installed commands. Ctrl-C or a closed pipe ends them without a traceback at any time.

This module has almost no imports: it must handle Ctrl-C while torch and Lightning are being imported, which takes seconds.
"""

import contextlib
import os
import pkgutil
import signal
import sys


def entry(function: str, help_of: str = "", options_of: str = "") -> None:
    """Import a command and run it.

    The exit status is that of the command, 130 after Ctrl-C, and 141 (128 + SIGPIPE) if standard output was closed, as by `| head -1`.

    Args:
        function: `module:name` of the command.
        help_of: `train` or `benchmark` if Hydra composes that configuration: `--help` prints its keys instead of Hydra's help page, and
            unknown keys are reported first.
        options_of: function in `irformer.commands.command_line` that returns the command's argument parser, if Hydra does not run it.
    """
    if help_of and {"-h", "--help"} & set(sys.argv[1:]):
        _print_help(help_of)
        return
    if options_of:  # handles --help and usage errors before the command imports torch
        pkgutil.resolve_name(f"irformer.commands.command_line:{options_of}")().parse_args()
    by_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # shells make background jobs ignore SIGINT
    if by_default:
        # An exception during an import may be caught or printed by the module that is being imported. Exiting is safe: no file is open yet.
        signal.signal(signal.SIGINT, lambda _signum, _frame: os._exit(128 + signal.SIGINT))
    if help_of:  # a misspelled key does not wait for torch
        pkgutil.resolve_name("irformer.commands.common:require_known_names")(help_of)
    command = pkgutil.resolve_name(function)
    if by_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        _discard_output()
        sys.exit(128 + 13)  # SIGPIPE, which does not exist on Windows


def _print_help(root: str) -> None:
    from irformer.core.folders import CONFIGS, config_packages, require_new_names, typed_config_dir
    from irformer.errors import UserError
    from irformer.schema.help import help_text

    try:
        config_dir = typed_config_dir(sys.argv[1:])
        folders = [package.folder for package in config_packages()] + ([] if config_dir is None else [config_dir])
        require_new_names(folders)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(help_text(root, CONFIGS, folders))


def _discard_output() -> None:
    """Redirect standard output to the null device, so that the interpreter can flush it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def train() -> None:
    """Run `irformer-train`."""
    entry("irformer.commands.train:train", "train")


def benchmark() -> None:
    """Run `irformer-benchmark`."""
    entry("irformer.commands.benchmark:benchmark", "benchmark")


def compare() -> None:
    """Run `irformer-compare`."""
    entry("irformer.commands.compare:compare_runs", options_of="compare")


def restore() -> None:
    """Run `irformer-restore`."""
    entry("irformer.commands.restore:restore", options_of="restore")


def export() -> None:
    """Run `irformer-export`."""
    entry("irformer.commands.export:export", options_of="export")


def inspect() -> None:
    """Run `irformer-inspect`."""
    entry("irformer.commands.inspect:inspect", options_of="inspect")


def prepare_data() -> None:
    """Run `irformer-prepare-data`."""
    entry("irformer.commands.prepare_data:prepare_data", options_of="prepare_data")


def reproduce() -> None:
    """Run `irformer-reproduce`."""
    entry("irformer.commands.reproduce:reproduce", options_of="reproduce")


def speed() -> None:
    """Run `irformer-speed`."""
    entry("irformer.commands.speed:speed", options_of="speed")


def protocols() -> None:
    """Run `irformer-protocols`."""
    entry("irformer.commands.protocols:protocols", options_of="protocols")


def configuration() -> None:
    """Run `irformer-configuration`."""
    entry("irformer.commands.configuration:configuration", options_of="configuration")


def tables() -> None:
    """Run `irformer-tables`."""
    entry("irformer.commands.tables:tables", options_of="tables")
