"""A small server with the part of the Hub's protocol that huggingface_hub's downloads use.

    GET       /api/models/REPO[/revision/REV]   the listing, with sizes and blob names
    HEAD, GET /REPO/resolve/REV/FILE            small files; LFS files answer 302
    GET       /cdn/SHA256                       LFS files, by range, without the token

It runs in a thread. LFS files redirect from 127.0.0.1 to localhost. A client treats that as another
host, like the Hub's storage. To cause a fault, set a field before the request.
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

#: Files of at least this size are LFS files.
LFS_FROM = 4096


@dataclass
class Repo:
    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    #: Tokens that may read it. Empty: everyone may read it.
    tokens: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name in sorted(self.files):
            digest.update(name.encode() + self.files[name])
        return digest.hexdigest()


@dataclass
class Seen:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """`with Hub({"org/repo": Repo(...)}) as hub:` serves at `hub.url` until the block ends."""

    repos: dict[str, Repo]
    seen: list[Seen] = field(default_factory=list)
    #: Names LFS files by this tag.
    tag: str = ""
    #: Answer everything with this status.
    status: int | None = None
    #: Close the connection after this many bytes of an LFS file, this many times.
    cut_after: int = 0
    cuts: int = 0
    #: Beyond this offset, wait a fifth of a second after each 64 KiB of an LFS file.
    slow_after: int | None = None

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fetched(self) -> list[str]:
        """Returns the names of the files requested with GET, in order."""
        names = {
            hashlib.sha256(data).hexdigest(): name
            for repo in self.repos.values()
            for name, data in repo.files.items()
        }
        out = []
        for seen in self.seen:
            if seen.method == "GET" and "/resolve/" in seen.path:
                name = seen.path.split("/resolve/")[1].split("/", 1)[1]
                data = next(r.files[name] for r in self.repos.values() if name in r.files)
                if len(data) < LFS_FROM:
                    out.append(name)
            elif seen.method == "GET" and seen.path.startswith("/cdn/"):
                out.append(names[seen.path.removeprefix("/cdn/")])
        return out


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    # One request per connection: if the server stops, no open connection keeps it alive.
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        auth = self.headers["Authorization"]
        token = auth.removeprefix("Bearer ") if auth else None
        self.hub.seen.append(Seen(self.command, path, self.headers["Range"], token))
        if self.hub.status is not None:
            self._answer(self.hub.status, b"<html>no</html>")
        elif path.startswith("/cdn/"):
            self._storage(path.removeprefix("/cdn/"))
        elif path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/"), token)
        else:
            self._resolve(path, token)

    def _repo(self, name: str, revision: str, token: str | None, *, listing: bool) -> Repo | None:
        repo = self.hub.repos.get(name)
        # As on the real Hub: a gated repository has a public listing but private files, and a
        # private repository does not exist for others.
        allowed = repo is not None and (not repo.tokens or token in repo.tokens)
        if token == "bad":
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._answer(401, b"", message)
        elif repo is not None and repo.gated and not allowed and not listing:
            self._answer(403 if token else 401, b"", {"X-Error-Code": "GatedRepo"})
        elif repo is None or not (allowed or repo.gated):
            self._answer(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in (*repo.revisions, repo.commit):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repo
        return None

    def _listing(self, rest: str, token: str | None) -> None:
        name, _, revision = rest.partition("/revision/")
        repo = self._repo(name, revision or "main", token, listing=True)
        if repo is None:
            return
        siblings = []
        for file, data in repo.files.items():
            entry: dict[str, object] = {
                "rfilename": file,
                "size": len(data),
                "blobId": hashlib.sha1(data).hexdigest(),
            }
            if len(data) >= LFS_FROM:
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        info = {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}
        self._answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str, token: str | None) -> None:
        name, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        repo = self._repo(name, revision, token, listing=False)
        if repo is None:
            return
        commit = {"X-Repo-Commit": repo.commit}
        data = repo.files.get(file)
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", **commit})
        elif len(data) < LFS_FROM:
            self._answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', **commit})
        else:
            sha256 = hashlib.sha256(data).hexdigest()
            linked = {
                "X-Linked-Etag": f'"{self.hub.tag or sha256}"',
                "X-Linked-Size": str(len(data)),
            }
            location = {"Location": f"http://localhost:{self.hub.port}/cdn/{sha256}"}
            self._answer(302, b"", {**linked, **commit, **location})

    def _storage(self, sha256: str) -> None:
        files = [data for repo in self.hub.repos.values() for data in repo.files.values()]
        data = next(data for data in files if hashlib.sha256(data).hexdigest() == sha256)
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if self.headers["Range"] else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = len(data)
        if self.hub.cuts:
            self.hub.cuts -= 1
            end = min(end, start + self.hub.cut_after)
        try:
            for at in range(start, end, 1 << 16):
                self.wfile.write(data[at : min(at + (1 << 16), end)])
                if self.hub.slow_after is not None and at >= self.hub.slow_after:
                    time.sleep(0.2)
        except OSError:
            pass  # the client disconnected

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
