"""An HTTP server on loopback that hands out a folder, and fails as it is told to."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ShardServer:
    """What is served, what was asked for, and what goes wrong.

    Attributes:
        url: of the folder.
        asked: names of the files that were asked for, in order.
        faults: by name, what the next requests for the file get; the last one stays if it is
            repeated for ever by `always`.
        always: by name, what every request gets once `faults` has nothing more.
        before: called with the name before anything is answered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.always: dict[str, str] = {}
        self.before: Callable[[str], None] = lambda name: None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                pass

            def do_GET(self) -> None:
                owner.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.lstrip("/")
        with self._lock:
            self.asked.append(name)
            waiting = self.faults[name]
            fault = waiting.pop(0) if waiting else self.always.get(name, "")
        self.before(name)
        path = self.folder / name
        if fault.isdigit() or not path.is_file():
            request.send_error(int(fault or 404))
            return
        if fault in ("wait", "trickle", "endless"):
            self._go_on(request, fault)
            return
        body = path.read_bytes()
        claimed = len(body)
        if fault == "wrong":
            body = bytes([body[0] ^ 1]) + body[1:]
        elif fault in ("cut", "reset"):
            body = body[: len(body) // 2]
        elif fault == "short":
            body = body[:-1]
            claimed = len(body)
        elif fault == "long":
            body += b"x"
            claimed = len(body)
        request.send_response(200)
        request.send_header("Content-Length", str(claimed))
        request.end_headers()
        request.wfile.write(body)
        request.wfile.flush()
        if fault == "reset":  # RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.close_connection = True

    def _go_on(self, request: BaseHTTPRequestHandler, how: str) -> None:
        """Say nothing, a byte now and then, or more and more, until the client hangs up."""
        if how == "wait":
            self._ended.wait(30)
            return
        request.send_response(200)
        request.end_headers()
        piece, pause = (b"x", 0.05) if how == "trickle" else (b"x" * 100_000, 0)
        with suppress(OSError):
            while not self._ended.wait(pause):
                request.wfile.write(piece)
                request.wfile.flush()

    @contextmanager
    def running(self) -> Iterator["ShardServer"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
