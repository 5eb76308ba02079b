"""Serves a channel over HTTP on localhost: ranges, ETag and Last-Modified, counters, and faults on demand.

Prints one JSON line with its URL and its pid once it listens, and ends when its standard input closes, so that
no server outlives the test that started it. Control paths:
  GET  /-/stats              counters: requests, bytes sent, archives asked for by name
  POST /-/reset              sets the counters back
  POST /-/faults?drop=N      every Nth archive ends in the middle of its body (0: none)
  POST /-/slow?bps=B&ms=L    at most B bytes a second for each connection, L milliseconds before each answer
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import email.utils
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARCHIVES = (".conda", ".tar.bz2")
CHUNK = 64 << 10


class State:
    def __init__(self, root):
        self.root = os.path.realpath(root)
        self.lock = threading.Lock()
        self.drop = 0
        self.bytes_per_second = 0
        self.latency = 0.0
        self.reset()

    def reset(self):
        with self.lock:
            self.requests = 0
            self.bytes = 0
            self.dropped = 0
            self.archives = collections.Counter()
            self.statuses = collections.Counter()

    def stats(self):
        with self.lock:
            return dict(requests=self.requests, bytes=self.bytes, dropped=self.dropped, archive_requests=sum(self.archives.values()),
                        archives=dict(self.archives), statuses={str(k): v for k, v in self.statuses.items()})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", content_type="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.count(status)

    def count(self, status, archive=None):
        with self.state.lock:
            self.state.requests += 1
            self.state.statuses[status] += 1
            if archive:
                self.state.archives[archive] += 1

    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        query = {k: float(v[-1]) for k, v in urllib.parse.parse_qs(url.query).items()}
        if url.path == "/-/reset":
            self.state.reset()
        elif url.path == "/-/faults":
            self.state.drop = int(query.get("drop", 0))
        elif url.path == "/-/slow":
            self.state.bytes_per_second = int(query.get("bps", 0))
            self.state.latency = query.get("ms", 0) / 1000
        else:
            return self.reply(404)
        self.reply(200, json.dumps(self.state.stats()).encode())

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        if self.path == "/-/stats":
            return self.reply(200, json.dumps(self.state.stats()).encode())
        self.answer(body=True)

    def answer(self, body):
        if self.state.latency:
            time.sleep(self.state.latency)
        path = os.path.realpath(os.path.join(self.state.root, urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")))
        if not path.startswith(self.state.root + os.sep) or not os.path.isfile(path):
            return self.reply(404)
        with open(path, "rb") as f:
            st = os.fstat(f.fileno())
            etag = f'"{st.st_mtime_ns:x}-{st.st_size:x}"'
            modified = email.utils.formatdate(int(st.st_mtime), usegmt=True)
            if self.headers.get("If-None-Match") == etag:
                self.send_response(304)
                self.send_header("ETag", etag)
                self.send_header("Last-Modified", modified)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return self.count(304)
            start, end, status = 0, st.st_size, 200
            if m := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start = int(m[1])
                end = min(end, int(m[2]) + 1) if m[2] else end
                status = 206
                if start >= st.st_size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{st.st_size}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return self.count(416)
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if path.endswith(".json") else "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", modified)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{st.st_size}")
            self.end_headers()
            name = os.path.basename(path)
            archive = name if name.endswith(ARCHIVES) and body else None
            self.count(status, archive)
            if not body:
                return
            stop = end
            if archive and self.state.drop:
                with self.state.lock:
                    if sum(self.state.archives.values()) % self.state.drop == 0:
                        stop = start + (end - start) // 2
                        self.state.dropped += 1
            try:
                self.send_body(f, start, stop)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
                return
            if stop != end:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    def send_body(self, f, start, stop):
        self.wfile.flush()
        began = time.monotonic()
        at = start
        while at < stop:
            sent = os.sendfile(self.connection.fileno(), f.fileno(), at, min(CHUNK, stop - at))
            if sent == 0:
                return
            at += sent
            with self.state.lock:
                self.state.bytes += sent
            if self.state.bytes_per_second:
                ahead = (at - start) / self.state.bytes_per_second - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, ConnectionResetError)):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(root, port=0):
    """Serves a channel from this process, with its url and state, until the end of the block."""
    state = State(root)
    server = Server(("127.0.0.1", port), type("BoundHandler", (Handler,), {"state": state}))
    server.url, server.state = f"http://127.0.0.1:{server.server_address[1]}", state
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("root")
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--drop", type=int, default=0)
    ap.add_argument("--bps", type=int, default=0)
    ap.add_argument("--ms", type=float, default=0)
    args = ap.parse_args()
    with serving(args.root, args.port) as server:
        server.state.drop, server.state.bytes_per_second, server.state.latency = args.drop, args.bps, args.ms / 1000
        print(json.dumps({"url": server.url, "pid": os.getpid()}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
