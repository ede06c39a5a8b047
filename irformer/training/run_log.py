"""log.txt of a run: a plain-text copy of the terminal output."""

import contextlib
import logging
import os
import re
import sys
import threading
import traceback as tracebacks
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from irformer.errors import UserError

LOG = Path("log.txt")

# For lines that only go to log.txt, while the terminal shows a progress bar.
log_only = logging.getLogger("irformer.log_only")
log_only.propagate = False
log_only.setLevel(logging.INFO)
log_only.addHandler(logging.NullHandler())

_ESCAPE_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])")
_BAR = re.compile(r"[^\r\n]*\d+/\d+ \[[^\]\r\n]*\]")  # of tqdm


class RunLog:
    """Context manager that appends the output of this process to a file, line by line, without escape codes and progress bars.

    If the terminal goes away (`| head -1`, a closed window, a full disk behind `> file`), the run continues and its output is only in the
    file. If the file cannot be written, the run continues too, and the terminal reports it once.

    Args:
        file: the log file, created if missing.
        header: the first line of this start.
    """

    def __init__(self, file: Path, header: str) -> None:
        self.file = file
        self.header = header
        self._lock = threading.RLock()
        self._failed = False
        self._streams: tuple[Any, Any] = (None, None)
        self._moved: list[logging.StreamHandler] = []

    def __enter__(self) -> "RunLog":
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = _Tee(sys.stdout, self), _Tee(sys.stderr, self)
        self._moved = [
            handler
            for handler in logging.getLogger("irformer").handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._streams[1]
        ]
        for handler in self._moved:
            handler.setStream(sys.stderr)
        self._handler = _Lines(self)
        log_only.addHandler(self._handler)
        self.add(self.header)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        log_only.removeHandler(self._handler)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = self._streams
        for handler in self._moved:
            handler.setStream(sys.stderr)
        if isinstance(error, UserError):
            self.add(f"error: {error}")
        elif isinstance(error, Exception):
            self.add("".join(tracebacks.format_exception(error)).rstrip())

    def add(self, line: str) -> None:
        """Append a line."""
        with self._lock:
            try:
                with self.file.open("a", encoding="utf-8", errors="backslashreplace") as opened:
                    opened.write(f"{line}\n")
                self._failed = False
            except OSError as error:
                if not self._failed and sys.__stderr__ is not None:
                    with contextlib.suppress(OSError, ValueError):
                        print(f"{os.path.relpath(self.file)} could not be written: {error.strerror}", file=sys.__stderr__, flush=True)
                self._failed = True


class _Lines(logging.Handler):
    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log.add(record.getMessage())


class _Tee:
    """A standard stream that also writes complete lines to a log and delegates everything else to the stream."""

    def __init__(self, stream: TextIO, log: RunLog) -> None:
        self._stream = stream
        self._log = log
        self._partial_line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text to both."""
        with self._log._lock:
            *lines, self._partial_line = (self._partial_line + text).split("\n")
            for line in lines:
                plain = _ESCAPE_CODES.sub("", line)
                if "\r" in plain:
                    plain = _BAR.sub("", plain.rpartition("\r")[2])
                plain = plain.rstrip()
                if plain or not line:
                    self._log.add(plain)
        try:
            self._stream.write(text)
        except OSError as error:
            self._disconnect(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._disconnect(error)

    def _disconnect(self, error: OSError) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        name = getattr(self._stream, "name", "standard output")
        self._log.add(f"{name}: {error.strerror}; the run continues; its output is only in this file")
