"""A web server within the test process, which misbehaves as it is told."""

import re
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What a server sends, and how; what it was asked.

    Args:
        address: of the server, without a path.
        files: content by path.
        etag: of all files; empty for none.
        ranges: whether parts are sent when they are asked for.
        heeds_if_range: whether a part is sent only of the version that the client means.
        told_length: whether the length of a file is told.
        type: content type.
        statuses: of the next answers; once they are used up, 200.
        stops: bytes after which the next answers break off; once they are used up, none does.
        stall: most seconds to wait where an answer breaks off; the wait ends when the client hangs up.
        before: called before each answer.
        asked: path and Range of each request, or its path alone.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    ranges: bool = True
    heeds_if_range: bool = True
    told_length: bool = True
    type: str = "application/octet-stream"
    statuses: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    stall: float = 0.0
    before: Callable[["Server"], None] = lambda server: None
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Server]:
    """A server on this machine, in a thread."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.before(state)
            asked = self.headers.get("Range")
            state.asked.append(f"{self.path} {asked}" if asked else self.path)
            status = state.statuses.pop(0) if state.statuses else 200
            if self.path not in state.files:
                status = 404
            if status != 200:
                self.send_error(status)
                return
            content, first = state.files[self.path], 0
            means = self.headers.get("If-Range")
            if asked and state.ranges and (means in (None, state.etag) or not state.heeds_if_range):
                first = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
                if first >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if state.told_length:
                self.send_header("Content-Length", str(len(content) - first))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.send_header("Content-Type", state.type)
            self.end_headers()
            stop = state.stops.pop(0) if state.stops else None
            self.wfile.write(content[first:] if stop is None else content[first : first + stop])
            if stop is not None:
                self.wfile.flush()
                select.select([self.connection], [], [], state.stall)  # readable once the client hangs up

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
