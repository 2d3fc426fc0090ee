"""A server below HTTP, for services that misbehave."""

import socket
import threading
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def speaking(speak):
    """A server below HTTP: each connection is handed to `speak` and closed; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):  # closed at the end
                while True:
                    threading.Thread(target=handle, args=(server.accept()[0],), daemon=True).start()

        def handle(connection):
            with connection, suppress(OSError):
                speak(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
