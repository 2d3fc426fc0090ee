"""Services of this machine: a real one, and one below HTTP that may misbehave."""

import socket
import threading
from contextlib import contextmanager, suppress

import uvicorn

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
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts


def reply(connection, answer):
    """What was asked, answered."""
    asked = connection.recv(2**16)
    connection.sendall(answer)
    return asked


@contextmanager
def listening(app, port=0):
    """A real HTTP server on a free port of this machine; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
