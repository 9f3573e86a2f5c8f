"""The server in the images of these tests. It uses the standard library and is never imported."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

released = threading.Event()
in_answer = threading.Event()
sick = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body go out in two writes: the second must not wait until the first is acknowledged.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        handler = getattr(self, f"get{path.replace('/', '_')}", self.get_)
        handler()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answer with the size and hash of the body, which is read as a stream."""
        digest, size = hashlib.sha256(), 0
        for chunk in self.chunks():
            digest.update(chunk)
            size += len(chunk)
        self.answer({"size": size, "sha256": digest.hexdigest()})

    do_PUT = do_POST

    def chunks(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        left = int(self.headers.get("Content-Length", 0))
        while left:
            chunk = self.rfile.read(min(left, 1 << 20))
            left -= len(chunk)
            yield chunk

    def answer(self, document, status=200, **headers) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def get_(self) -> None:
        """Answer with the instance's identity and the request."""
        self.answer(
            {
                "revision": os.environ["K_REVISION"],
                "path": self.path,
                "method": self.command,
                "headers": [[name, value] for name, value in self.headers.items()],
                "env": dict(os.environ),
                "pid": os.getpid(),
                "python": sys.path,
                "cwd": os.getcwd(),
            },
            X_From_App="yes",
        )

    def get_metadata(self) -> None:
        """Answer with the metadata server's response to the path in the query."""
        path, _, flavour = self.path.partition("?")[2].partition("&")
        request = urllib.request.Request(f"http://{os.environ['GCE_METADATA_HOST']}/{path}")
        if flavour:
            request.add_header("Metadata-Flavor", "Google")
        try:
            with urllib.request.urlopen(request) as response:
                text, headers = response.read().decode(), dict(response.headers)
                self.answer({"status": 200, "text": text, "headers": headers})
        except urllib.error.HTTPError as error:
            with error:
                self.answer({"status": error.code, "text": error.read().decode()})

    def get_redirect(self) -> None:
        self.answer({}, 302, Location="/elsewhere", Set_Cookie="a=1; Path=/")

    def get_gzip(self) -> None:
        body = base64.b64decode("H4sIAAAAAAAC/8tIzcnJBwCGphA2BQAAAA==")
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def get_events(self) -> None:
        """Send two server-sent events, the second one after a request to /release."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: one\n\n")
        released.wait(100)
        self.wfile.write(b"data: two\n\n")
        self.close_connection = True

    def get_release(self) -> None:
        released.set()
        self.answer({})

    def get_wait(self) -> None:
        """Answer after a request to /release or after SIGTERM."""
        in_answer.set()
        released.wait(100)
        self.answer({"revision": os.environ["K_REVISION"]})

    def get_waiting(self) -> None:
        """Answer once a request waits in /wait."""
        self.answer({"waiting": in_answer.wait(60)})

    def get_hold(self) -> None:
        """Write a file into the folder in the query, and answer once the folder has a file `go`."""
        folder = self.path.partition("?")[2]
        with open(f"{folder}/{os.getpid()}-{time.monotonic_ns()}", "w"):
            pass
        while not os.path.exists(f"{folder}/go"):
            time.sleep(0.01)
        self.answer({"pid": os.getpid(), "cwd": os.getcwd()})

    def get_eat(self) -> None:
        """Use the MiB in the query, in this process or a child process."""
        size, _, child = self.path.partition("?")[2].partition("&")
        if child:
            meal = f"x = b'x' * ({size} << 20)"
            subprocess.run([sys.executable, "-c", meal], check=False)
            # Time for the runtime to end this process as well.
            threading.Event().wait(60)
            return self.answer({})
        return self.answer(len(b"x" * (int(size) << 20)))

    def get_fall_sick(self) -> None:
        sick.set()
        self.answer({})

    def get_alive(self) -> None:
        self.answer({}, 503 if sick.is_set() else 200)

    def get_go_deaf(self) -> None:
        """Stop listening, but keep running."""
        self.answer({})
        self.server.socket.close()
        threading.Event().wait()

    def get_crash(self) -> None:
        print("crashing", flush=True)
        os._exit(3)

    def get_drop(self) -> None:
        """Close without an answer."""
        self.close_connection = True

    def get_half(self) -> None:
        """Exit in the middle of an answer."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.close_connection = True

    def get_log(self) -> None:
        print(urllib.parse.unquote(self.path.partition("?")[2]), flush=True)
        self.answer({})

    def get_socket(self) -> None:
        """Open a WebSocket, send the first text back in capitals, and close."""
        magic = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("Sec-WebSocket-Protocol", "chat")
        self.end_headers()
        size = self.rfile.read(2)[1] & 0x7F
        mask = self.rfile.read(4)
        text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size))).upper()
        self.wfile.write(bytes([0x81, len(text)]) + text)
        self.wfile.write(b"\x88\x02\x03\xe8")
        with contextlib.suppress(OSError):
            self.rfile.read(8)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256


def main() -> None:
    if "FAIL" in os.environ:
        print("no database", flush=True)
        print('{"severity": "ERROR", "message": "cannot start", "code": 7}', flush=True)
        sys.exit(int(os.environ["FAIL"]))
    if "HANG" in os.environ:
        print(os.getpid(), flush=True)
        threading.Event().wait()
    if "IGNORE_TERM" in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: print("ignoring SIGTERM", flush=True))
    else:
        # Like a server that shuts down well: finish, then go.
        signal.signal(signal.SIGTERM, lambda *_: (print("got SIGTERM", flush=True), os._exit(0)))
    Server(("", int(os.environ["PORT"])), Handler).serve_forever()


main()
