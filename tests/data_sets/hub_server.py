"""A Hugging Face Hub of a few endpoints, as far as ``huggingface_hub`` asks; files stay in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Attributes: files: by path. asked: every request line. tags: that were made."""

    files: dict[str, bytes]
    asked: list[str]
    tags: list[str]

    def log_message(self, *given: Any) -> None:
        """Nothing."""

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        path = self.path.split("?")[0]
        if found := re.match(r"/datasets/[^/]+/[^/]+/resolve/[^/]+/(.+)", path):
            data = self.files[found[1]]
            tag = f'"{hashlib.sha1(data).hexdigest()}"'  # noqa: S324 - as git has it
            self.answer(data, ETag=tag, X_Repo_Commit=SHA)
        elif re.match(r"/api/datasets/[^/]+/[^/]+/tree/", path):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": SHA} for n, d in self.files.items()]
            self.answer(tree)
        elif re.match(r"/api/datasets/owner/pick", path):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": "owner/pick", "sha": SHA, "siblings": siblings, "tags": [], "private": False})
        else:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def do_DELETE(self) -> None:
        self.asked.append(f"DELETE {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer({}, 404)

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/datasets/owner/pick"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                    ]
                }
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {
                    "commitUrl": f"http://{self.headers['Host']}/datasets/owner/pick/commit/{SHA}",
                    "commitOid": SHA,
                    "hookOutput": "",
                }
            )
        elif "/tag/" in self.path:
            self.tags.append(json.loads(body)["tag"])
            self.answer({})
        else:
            self.answer({}, 404)


@contextmanager
def serving() -> Iterator[tuple[str, type[Hub]]]:
    """Its address, and what became of it."""
    kind: type[Hub] = type("_Hub", (Hub,), {"files": {}, "asked": [], "tags": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
