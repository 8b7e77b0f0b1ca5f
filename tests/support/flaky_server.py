"""A web server that fails in the ways of real ones, so often as it is told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FlakyServer(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        failures: for a file, how its next answers fail, first to last: an HTTP status; `drop`, which closes the connection in
            mid-body; `cut`, which ends a body without a declared length early; `flip`, which changes a byte; `hang`, which
            never answers.
        asked: how often each file was asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.failures, self.asked = folder, dict[str, list[int | str]](), Counter[str]()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(SimpleHTTPRequestHandler):
    server: FlakyServer

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        self.server.asked[name] += 1
        left = self.server.failures.get(name, [])
        failure = left.pop(0) if left else None
        path = self.server.folder / name
        if not path.is_file():
            failure = 404
        if isinstance(failure, int):
            self.send_error(failure)
            return
        if failure == "hang":
            self.server.closing.wait()
            return
        content = bytearray(path.read_bytes())
        if failure == "flip":
            content[len(content) // 2] ^= 1
        self.send_response(200)
        if failure != "cut":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if failure in ("drop", "cut") else content)

    def log_message(self, *args: object) -> None: ...


@contextmanager
def serve(folder: Path) -> Iterator[FlakyServer]:
    with FlakyServer(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()
