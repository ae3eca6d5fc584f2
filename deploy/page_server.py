"""Serves the demo's page on loopback while it runs; nothing else of the folder, and nothing to other machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

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
        if self._is_public():
            super().do_GET()
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        if self._is_public():
            super().do_HEAD()
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _is_public(self) -> bool:
        path = self.path.partition("?")[0]
        name = path.removeprefix("/overlays/")
        return path in _PUBLIC or (path != name and name.endswith(".png") and "/" not in name and ".." not in name)
