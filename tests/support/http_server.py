"""A real HTTP server whose one document a test decides."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Document:
    """What every GET answers.

    Attributes:
        body, content_type, status: Of the answer.
        etag, modified: Whether it says an ETag, or when it was modified; 304 is answered to who has it.
        length: What `Content-Length` says; None: the truth.
        stalls: The body stops after its first byte until `release`.
        asked: Headers of each request.
    """

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body, self.content_type, self.status = body, content_type, 200
        self.etag, self.modified = True, ""
        self.length: int | None = None
        self.stalls = False
        self.release = threading.Event()
        self.asked: list[dict[str, str]] = []
        self.answered: list[int] = []
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    document: Document

    def do_GET(self) -> None:
        said = self.document
        said.asked.append(dict(self.headers))
        tag = f'"{hashlib.sha256(said.body).hexdigest()}"'
        same = said.etag and self.headers.get("If-None-Match") == tag
        same |= bool(said.modified) and self.headers.get("If-Modified-Since") == said.modified
        status = 304 if same and said.status == 200 else said.status
        said.answered.append(status)
        self.send_response(status)
        if said.etag:
            self.send_header("ETag", tag)
        if said.modified:
            self.send_header("Last-Modified", said.modified)
        if status == 304:
            self.end_headers()
            return
        self.send_header("Content-Type", said.content_type)
        self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
        self.end_headers()
        if said.stalls:
            self.wfile.write(said.body[:1])
            self.wfile.flush()
            said.release.wait(60)
            return
        self.wfile.write(said.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def http_document(body: bytes, content_type: str = "application/json") -> Iterator[Document]:
    """A server on the loopback; its document's `url` is where."""
    document = Document(body, content_type)
    handler = type("Handler", (_Handler,), {"document": document})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        document.url = f"http://127.0.0.1:{server.server_port}/fundamentals"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield document
        finally:
            document.release.set()
            server.shutdown()
            thread.join()
