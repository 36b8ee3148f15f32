"""Serves files over HTTP/1.1 until it is told to stop.

`serve.py PATH ADDRESS PORT BYTES_PER_SECOND`: of a folder, the files in it by their names;
of a file, that one under any name. The kernel paces each connection to the
given rate. (curl's --limit-rate lets the data come in one burst a second, in which no
outage would show.)
"""

import http.server
import os
import socket
import sys
from pathlib import Path


# asm-generic/socket.h; Python has no name for it.
SO_MAX_PACING_RATE = 47


class Files(http.server.BaseHTTPRequestHandler):
    """Any path gets its file, by sendfile(2)."""

    protocol_version = "HTTP/1.1"
    path_served: Path
    pace: int

    def do_GET(self) -> None:
        """The whole file."""
        path = self.path_served
        if path.is_dir():
            path = path / Path(self.path).name
            if not path.is_file():
                self.send_error(404)
                return
        with open(path, "rb") as file:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            self.connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self.pace)
            try:
                self.connection.sendfile(file)
            except OSError as error:
                # The client left, or its address went away for good.
                self.log_message("%s", error)
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        print(f"{self.address_string()} {format % args}", flush=True)


def main() -> None:
    """Serves until SIGTERM."""
    path, address, port, pace = sys.argv[1:]
    Files.path_served, Files.pace = Path(path), int(pace)
    server = http.server.ThreadingHTTPServer((address, int(port)), Files)
    print(f"serving {path} at {address}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
