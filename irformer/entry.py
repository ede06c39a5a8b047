"""How train.py and scripts/ start a command, so that Ctrl-C and a closed pipe end it without a traceback at any moment.

This module imports next to nothing: it has to answer Ctrl-C while torch and Lightning load, which takes seconds.
"""

import contextlib
import os
import pkgutil
import signal
import sys


def entry(function: str) -> None:
    """Import a command and run it; it ends the process.

    The status is the command's own, 130 after Ctrl-C, and 141 (128 + SIGPIPE) where standard output was closed, as by `| head -1`.

    Args:
        function: `module:name` of the command.
    """
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
        sys.exit(128 + signal.SIGPIPE)


def _discard_output() -> None:
    """Let the interpreter flush standard output into nothing when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
