"""A TCP proxy that cuts connections, as networks do."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

PIECE_BYTES = 4096
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, for no time at all


class Proxy:
    """Passes connections on to `upstream`.

    Each is cut once the server sent it the next number of `bytes_max`.
    """

    def __init__(self, upstream: str, bytes_max: Iterator[int] | None = None):
        host, _, port = upstream.rpartition(":")
        self.upstream = (host, int(port))
        self.bytes_max = bytes_max
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        """What each connection's client said first."""
        self.lets_in = True
        """Whether new connections get to the server; else they are closed at once."""
        self.lock = threading.Lock()
        self.open: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Resets every connection, on both sides and in the middle of whatever is under way."""
        with self.lock:
            pairs = list(self.open)
        for pair in pairs:
            self._cut(pair)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self.listener.accept()
                if not self.lets_in:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self.upstream)
                except OSError:
                    client.close()
                    continue
                pair = (client, server)
                bytes_max = next(self.bytes_max) if self.bytes_max else None
                with self.lock:
                    self.open.add(pair)
                threading.Thread(target=self._up, args=(pair,), daemon=True).start()
                threading.Thread(target=self._down, args=(pair, bytes_max), daemon=True).start()

    def _up(self, pair):
        client, server = pair
        with contextlib.suppress(OSError):
            piece = client.recv(PIECE_BYTES)
            if piece:  # browsers connect in advance, too
                self.requests.append(piece)
            while piece:
                server.sendall(piece)
                piece = client.recv(PIECE_BYTES)
            server.shutdown(socket.SHUT_WR)

    def _down(self, pair, bytes_max):
        client, server = pair
        with contextlib.suppress(OSError):
            while piece := server.recv(
                PIECE_BYTES if bytes_max is None else min(PIECE_BYTES, bytes_max)
            ):
                client.sendall(piece)
                if bytes_max is not None:
                    bytes_max -= len(piece)
                    if bytes_max == 0:
                        return self._cut(pair)
            client.shutdown(socket.SHUT_WR)

    def _cut(self, pair):
        with self.lock:
            if pair not in self.open:
                return
            self.open.remove(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                # Wakes the thread that reads it, which `close` would not.
                end.shutdown(socket.SHUT_RD)
            end.close()
