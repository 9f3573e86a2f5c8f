"""A container of a service with sidecars: it answers itself, or forwards. Never imported.

Arguments: its name, its port ("" for $PORT), and the port to forward to ("" to answer).
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import time
import urllib.request

name, port, upstream = sys.argv[1:4]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == f"/die-{name}":
            os._exit(7)
        if upstream:
            try:
                with urllib.request.urlopen(f"http://localhost:{upstream}{self.path}") as answer:
                    seen = json.load(answer)
            except OSError as error:
                seen = {"error": str(error)}
        else:
            seen = {}
        files = sorted(os.listdir("/shared")) if os.path.isdir("/shared") else []
        seen[name] = {"port": os.environ.get("PORT", ""), "files": files}
        self.send_response(500 if self.path == "/sick" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(seen).encode())

    def log_message(self, *_: object) -> None:
        pass


def end(*_: object) -> None:
    print(f"{name} ends", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
print(f"{name} begins", flush=True)
if os.environ.get("FAIL"):
    sys.exit(int(os.environ["FAIL"]))
if os.environ.get("HANG"):
    time.sleep(1000)
if os.path.isdir("/shared"):
    with open(f"/shared/{name}", "w"):
        pass
server = http.server.ThreadingHTTPServer(("", int(port or os.environ["PORT"])), Handler)
server.serve_forever()
