"""An HTTP server on loopback that hands out a folder, and fails as it is told to."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ShardServer(ThreadingHTTPServer):
    """What is served, what was asked for, and what goes wrong.

    Attributes:
        url: of the folder.
        asked: names of the files that were asked for, in order.
        faults: by name, what the next requests for the file get.
        always: by name, what every request gets once `faults` has nothing more.
        before: called with the name before anything is answered.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.folder = folder
        self.asked: list[str] = []
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.always: dict[str, str] = {}
        self.before: Callable[[str], None] = lambda name: None
        self.lock = threading.Lock()
        self.ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator["ShardServer"]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            self.shutdown()
            thread.join()
            self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: ShardServer

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        server, name = self.server, self.path.lstrip("/")
        with server.lock:
            server.asked.append(name)
            waiting = server.faults[name]
            fault = waiting.pop(0) if waiting else server.always.get(name, "")
        server.before(name)
        path = server.folder / name
        if fault.isdigit() or not path.is_file():
            self.send_error(int(fault or 404))
        elif fault == "wait":  # says nothing until the client hangs up
            server.ended.wait(30)
        elif fault == "trickle":
            self._go_on(b"x", 0.05)
        elif fault == "endless":
            self._go_on(b"x" * 100_000, 0)
        else:
            self._send(path.read_bytes(), fault)

    def _send(self, body: bytes, fault: str) -> None:
        half = body[: len(body) // 2]
        wrong = bytes([body[0] ^ 1]) + body[1:]
        others = {
            "cut": half,
            "reset": half,
            "wrong": wrong,
            "short": body[:-1],
            "long": body + b"x",
        }
        sent = others.get(fault, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body if sent is half else sent)))
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()
        if fault == "reset":  # RST instead of FIN
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _go_on(self, piece: bytes, pause: float) -> None:
        """Until the client hangs up."""
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while not self.server.ended.wait(pause):
                self.wfile.write(piece)
                self.wfile.flush()
