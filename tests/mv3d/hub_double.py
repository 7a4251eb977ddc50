"""A hub on this machine: enough of its HTTP interface for its own client to make repositories, upload and download."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_a_test"


@dataclass
class HubDouble:
    """What the server holds, and what it was asked."""

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each repository: the commit that a branch is at."""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of each commit."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Large files, by their SHA-256."""
    downloads: list[str] = field(default_factory=list)

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.commit(repository, revision)]

    def commit(self, repository: str, revision: str) -> str:
        return self.branches[repository].get(revision, revision)

    def put(self, repository: str, files: dict[str, bytes], revision: str = "main") -> str:
        digest = hashlib.sha1()
        for name, content in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        self.commits[digest.hexdigest()] = files
        self.branches.setdefault(repository, {})[revision] = digest.hexdigest()
        return digest.hexdigest()


@contextmanager
def hub_double() -> Iterator[HubDouble]:
    hub = HubDouble()

    class Handler(_Handler):
        double = hub

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # the client downloads by many threads, and closes all if one is turned away

    with Server(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    double: HubDouble
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repository = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            self.double.private.setdefault(
                repository, bool(asked.get("private")) or asked.get("visibility") == "private"
            )
            if repository in self.double.branches:
                self._answer({"error": "You already created this model repo"}, 409)
                return
            self.double.put(repository, {})
            self._answer({"url": f"{self.double.url}/{repository}", "name": repository})
        elif path == "/api/validate-yaml":
            head = json.loads(body)["content"].split("---")[1]
            errors = [] if re.search(r"^license: [a-z0-9.+-]+$", head, re.MULTILINE) else [{"message": "no license"}]
            self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            branches = self.double.branches[found[1]]
            branches.setdefault(found[2], branches["main"])
            self._answer({})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = [
                {"path": f["path"], "shouldIgnore": False, "uploadMode": _mode(f["path"])}
                for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            wanted = [
                {**f, "actions": {"upload": {"href": f"{self.double.url}/blob/{f['oid']}"}}}
                for f in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": wanted})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            files = dict(self.double.files(found[1], found[2]))
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.double.blobs[line["value"]["oid"]]
            commit = self.double.put(found[1], files, found[2])
            self._answer({"commitUrl": f"{self.double.url}/{found[1]}/commit/{commit}", "commitOid": commit})
        else:
            self._answer({"error": f"no such place: {path}"}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == digest
        self.double.blobs[digest] = body
        self._answer({})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?", path)
        if resolved := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._give(*resolved.groups())
        elif not found or found[1] not in self.double.branches:
            self._answer({"error": "Repository not found"}, 404, "RepoNotFound")
        elif self.double.commit(found[1], found[3] or "main") not in self.double.commits:
            self._answer({"error": "Invalid rev id"}, 404, "RevisionNotFound")
        else:
            commit = self.double.commit(found[1], found[3] or "main")
            files = self.double.commits[commit]
            if found[2] == "tree":
                self._answer([_entry(name, content) for name, content in files.items()])
            else:
                siblings = [{"rfilename": name} for name in files]
                self._answer({"id": found[1], "sha": commit, "private": False, "tags": [], "siblings": siblings})

    do_HEAD = do_GET

    def _give(self, repository: str, revision: str, name: str) -> None:
        commit = self.double.commit(repository, revision)
        content = self.double.commits[commit][name]
        if self.command == "GET":
            self.double.downloads.append(name)
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, content: object, code: int = 200, error: str | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if _mode(name) == "lfs":
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry
