"""Serves the demo's page on loopback while it runs; nothing else of the folder, and nothing to other machines."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

_CHOICE: Final = re.compile(r"/(?:index\.html)?\?class=([0-9]+)")
_PUBLIC: Final = ("/", "/index.html", "/findings.jsonl", "/alerts.jsonl")


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the folder's public files for the length of a `with` block, and give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="page server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if choice := _CHOICE.fullmatch(self.path):
            self._send_page(choice[1])
        elif self._is_public():
            super().do_GET()
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        if self._is_public():
            super().do_HEAD()
        else:
            self.send_error(404)

    def _send_page(self, number: str) -> None:
        """Send the page with the class of this number chosen; it has no script that could."""
        try:
            page = Path(self.directory, "index.html").read_bytes()
        except OSError:
            self.send_error(404)
            return
        chosen = f'id="class-{number}"'.encode()
        page = page.replace(chosen, chosen + b" checked", 1)  # of two that are checked, the later counts
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _is_public(self) -> bool:
        path = self.path.partition("?")[0]
        name = path.removeprefix("/overlays/")
        return path in _PUBLIC or (path != name and name.endswith(".png") and "/" not in name and ".." not in name)
