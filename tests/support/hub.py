"""A Hugging Face Hub on the loopback, with faults on demand.

The real `huggingface_hub` client talks to it over HTTP, so that publishing
and loading are tested as they run, with no network and nothing replaced:

    with Hub(tokens=["hf_secret"]) as hub:
        hub.push("org/name", {"config.json": b"{}"})
        with hub.fault("flip", path="/resolve/"):
            ...
        assert hub.requests == [("HEAD", "/org/name/resolve/main/…"), …]

It keeps repositories in memory: a commit is a mapping of paths to bytes, and
files of weights are stored the way Git LFS does. Only the
routes this project's client calls exist. Xet must be off in the client.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, file_download

STATUSES = {"401": 401, "403": 403, "404": 404, "429": 429, "500": 500}
KINDS = (
    *STATUSES,
    "hang",  # never answers
    "stall",  # sends half of the body, then nothing more
    "cut",  # promises the whole body, sends half, hangs up
    "short",  # promises and sends half of the body
    "flip",  # one bit of the body is another
    "stale",  # serves the commit before the one asked for
    "die",  # hangs up in the middle of a commit, which is not made
    "deaf",  # makes the commit, and hangs up instead of answering
)


@dataclass
class Commit:
    """One state of a repository."""

    oid: str
    parent: "Commit | None"
    files: dict


@dataclass
class Repository:
    """A repository with one branch, `main`."""

    private: bool = False
    head: Commit | None = None
    tags: dict = field(default_factory=dict)

    def commit(self, files):
        seed = repr((self.head and self.head.oid, sorted(files), self.private))
        contents = b"".join(files[path] for path in sorted(files))
        oid = hashlib.sha1(seed.encode() + contents).hexdigest()
        self.head = Commit(oid, self.head, dict(files))
        return oid

    def find(self, revision):
        commits, commit = {}, self.head
        while commit is not None:
            commits[commit.oid] = commit
            commit = commit.parent
        if revision == "main":
            return self.head
        return commits.get(self.tags.get(revision, revision))


@dataclass
class Fault:
    """What goes wrong, where, and how often (None: every time)."""

    kind: str
    path: str
    method: str
    times: int | None


def is_lfs(path):
    """Whether the Hub keeps the file outside git."""
    return path.endswith((".h5", ".safetensors", ".bin"))


def blob_oid(contents):
    """The name git gives to a file's contents."""
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


class Hub:
    """A loopback Hub; a context manager that serves from a thread.

    Args:
        tokens: list of strings. The access tokens it accepts.
    """

    def __init__(self, tokens=()):
        self.tokens = set(tokens)
        self.repositories = {}
        self.lfs = {}
        self.sdks = {}  # of the Spaces
        self.requests = []
        self.faults = []
        self.stalled = threading.Event()
        self._released = threading.Event()
        self._connections = set()
        self._port = 0

    def __enter__(self):
        self._listen()
        return self

    def __exit__(self, *exception):
        self._hang_up()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def _listen(self):
        self._released.clear()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},
            daemon=True,
        ).start()

    def _hang_up(self):
        """Stops listening, and closes the connections kept alive."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(2)

    def push(self, name, files, private=False):
        """Commits files from the server's side; returns the commit."""
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit(files)

    @contextlib.contextmanager
    def fault(self, kind, path="", method="", times=None):
        """Lets matching requests fail while the context lasts.

        Args:
            kind: string. One of `KINDS`, or `"refuse"`: nobody listens.
            path: string. Regular expression found in the request's path.
            method: string. The HTTP method, or `""` for any.
            times: int. How many requests fail; None means every one.
        """
        if kind == "refuse":
            self._hang_up()
            try:
                yield
            finally:
                self._listen()
            return
        if kind not in KINDS:
            raise ValueError(f"Unknown fault. Received: kind={kind}")
        fault = Fault(kind, path, method, times)
        self.faults.append(fault)
        self.stalled.clear()
        try:
            yield
        finally:
            self.faults.remove(fault)
            self._released.set()
            self._released = threading.Event()

    def take_fault(self, method, path):
        """The kind of fault that this request meets, or None."""
        for fault in self.faults:
            if fault.times == 0 or fault.method not in ("", method):
                continue
            if re.search(fault.path, path):
                if fault.times is not None:
                    fault.times -= 1
                return fault.kind
        return None

    def wait(self):
        """Keeps a request waiting until the fault is over."""
        self.stalled.set()
        self._released.wait()


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection; `hub` is set on a subclass."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Keeps the tests' output quiet."""

    def setup(self):
        super().setup()
        self.hub._connections.add(self.connection)

    def finish(self):
        self.hub._connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self):
        with contextlib.suppress(ConnectionError):
            super().handle()

    def dispatch(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        self.fault = self.hub.take_fault(self.command, path)
        if self.fault == "hang":
            self.hub.wait()
            self.close_connection = True
            return
        if self.fault == "die":
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.close_connection = True
            return
        self.body = self._read_body()
        if self.fault in STATUSES:
            self.error(STATUSES[self.fault])
            return
        # A Space's repository is one whose name begins with "spaces/".
        path = path.replace("/api/spaces/", "/api/models/spaces/")
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                answer(self, **match.groupdict())
                return
        self.error(404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = dispatch

    def _read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def error(self, status, code=None, **headers):
        headers["Retry-After"] = "0"
        if code is not None:
            headers["X-Error-Code"] = code
        self.send(b'{"error": "as asked"}', status, headers)

    def json(self, value):
        self.send(json.dumps(value).encode())

    def send(self, body, status=200, headers=None):
        """Sends an answer whole, or spoilt as the fault says."""
        if self.fault == "deaf":
            self.close_connection = True
            return
        half = body[: len(body) // 2]
        announced = len(body)
        if self.command != "HEAD" and self.fault == "short":
            body, announced = half, len(half)
        if self.fault == "flip" and body:
            middle = len(body) // 2
            flipped = bytes([body[middle] ^ 1])
            body = body[:middle] + flipped + body[middle + 1 :]
        self.send_response(status)
        self.send_header("Content-Length", str(announced))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault in ("cut", "stall"):
            if status != 206:  # and nothing to one who resumes
                self.wfile.write(half)
                self.wfile.flush()
            self.close_connection = True
            if self.fault == "stall":
                self.hub.wait()
            return
        self.wfile.write(body)

    def allowed(self):
        """Whether the request carries a token that the Hub knows."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return scheme == "Bearer" and token in self.hub.tokens

    def repository(self, name):
        """The repository, or None after an error has been answered."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.allowed()):
            self.error(404 if self.allowed() else 401, "RepoNotFound")
            return None
        return found

    def commit(self, name, revision):
        """The commit, or None after an error has been answered."""
        repository = self.repository(name)
        if repository is None:
            return None
        found = repository.find(revision)
        if found is None:
            self.error(404, "RevisionNotFound")
        elif self.fault == "stale":
            return found.parent
        return found


def _create(handler):
    if not handler.allowed():
        handler.error(401)
        return
    wish = json.loads(handler.body)
    name = f"{wish['organization']}/{wish['name']}"
    if wish.get("type") == "space":
        name = f"spaces/{name}"
        handler.hub.sdks[name] = wish["sdk"]
    known = name in handler.hub.repositories
    if not known:
        private = wish.get("private") or wish.get("visibility") == "private"
        handler.hub.push(name, {".gitattributes": b"*.h5 lfs\n"}, private)
    url = json.dumps({"url": f"{handler.hub.url}/{name}"}).encode()
    handler.send(url, 409 if known else 200)


def _validate_yaml(handler):
    handler.json({"errors": [], "warnings": []})


def _blob(path, contents):
    """What the Hub says of a file where it is asked for its metadata."""
    blob = {"size": len(contents), "blobId": blob_oid(contents)}
    if is_lfs(path):
        sha256 = hashlib.sha256(contents).hexdigest()
        lfs = {"sha256": sha256, "size": len(contents), "pointerSize": 130}
        blob["lfs"] = lfs
    return blob


def _info(handler, name, revision="main"):
    commit = handler.commit(name, revision)
    if commit is not None:
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        if "blobs=true" in urlsplit(handler.path).query.lower():
            for sibling in siblings:
                contents = commit.files[sibling["rfilename"]]
                sibling |= _blob(sibling["rfilename"], contents)
        private = handler.hub.repositories[name].private
        handler.json(
            {
                "id": name,
                "sha": commit.oid,
                "private": private,
                "siblings": siblings,
            }
        )


def _refs(handler, name):
    repository = handler.repository(name)
    if repository is None:
        return
    heads = {"heads": {"main": repository.head.oid}, "tags": repository.tags}
    branches, tags = (
        [
            {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid}
            for n, oid in refs.items()
        ]
        for kind, refs in heads.items()
    )
    handler.json({"branches": branches, "tags": tags, "converts": []})


def _tree(handler, name, revision):
    commit = handler.commit(name, revision)
    if commit is None:
        return
    entries = []
    recursive = "recursive=true" in urlsplit(handler.path).query.lower()
    folders = {path.partition("/")[0] for path in commit.files if "/" in path}
    for path in sorted(folders):
        oid = hashlib.sha1(path.encode()).hexdigest()
        entries.append({"type": "directory", "path": path, "oid": oid})
    for path, contents in sorted(commit.files.items()):
        if "/" in path and not recursive:
            continue
        entry = {"type": "file", "path": path, "size": len(contents)}
        entry["oid"] = blob_oid(contents)
        if is_lfs(path):
            sha256 = hashlib.sha256(contents).hexdigest()
            entry["lfs"] = {
                "oid": sha256,
                "size": len(contents),
                "pointerSize": 130,
            }
        entries.append(entry)
    handler.json(entries)


def _resolve(handler, name, revision, path):
    commit = handler.commit(name, revision)
    if commit is None:
        return
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        handler.error(404, "EntryNotFound", **headers)
        return
    contents = commit.files[path]
    headers["ETag"] = f'"{blob_oid(contents)}"'
    if is_lfs(path):
        headers["ETag"] = f'"{hashlib.sha256(contents).hexdigest()}"'
        headers["X-Linked-Etag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(len(contents))
    span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if span is None:
        handler.send(contents, 200, headers)
        return
    start = int(span[1])
    size = len(contents)
    headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    handler.send(contents[start:], 206, headers)


def _preupload(handler, name, revision):
    commit = handler.commit(name, revision)
    if commit is None:
        return
    files = []
    for file in json.loads(handler.body)["files"]:
        mode = "lfs" if is_lfs(file["path"]) else "regular"
        files.append(
            {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        )
    handler.json({"files": files})


def _lfs_batch(handler, name):
    objects = []
    for wanted in json.loads(handler.body)["objects"]:
        href = f"{handler.hub.url}/lfs/{wanted['oid']}"
        if wanted["oid"] not in handler.hub.lfs:
            wanted["actions"] = {"upload": {"href": href}}
        objects.append(wanted)
    handler.json({"transfer": "basic", "objects": objects})


def _lfs_put(handler, oid):
    if hashlib.sha256(handler.body).hexdigest() != oid:
        handler.error(400)
        return
    handler.hub.lfs[oid] = handler.body
    handler.send(b"")


def _make_commit(handler, name, revision):
    if not handler.allowed():
        handler.error(401)
        return
    repository = handler.repository(name)
    lines = [json.loads(line) for line in handler.body.splitlines()]
    files = dict(repository.head.files)
    for line in lines:
        value = line["value"]
        if line["key"] == "header":
            expected = value.get("parentCommit", repository.head.oid)
            if expected != repository.head.oid:
                handler.error(412)
                return
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = handler.hub.lfs[value["oid"]]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    oid = repository.commit(files)
    url = f"{handler.hub.url}/{name}/commit/{oid}"
    handler.json({"commitOid": oid, "commitUrl": url})


def _tag(handler, name, revision):
    if not handler.allowed():
        handler.error(401)
        return
    commit = handler.commit(name, revision)
    tag = json.loads(handler.body)["tag"]
    if tag in handler.hub.repositories[name].tags:
        handler.error(409)
        return
    handler.hub.repositories[name].tags[tag] = commit.oid
    handler.send(b"")


_NAME = r"(?P<name>(?:spaces/)?[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate_yaml),
    ("GET", f"/api/models/{_NAME}", _info),
    ("GET", f"/api/models/{_NAME}/revision/{_REVISION}", _info),
    ("GET", f"/api/models/{_NAME}/refs", _refs),
    ("GET", f"/api/models/{_NAME}/tree/{_REVISION}", _tree),
    ("HEAD", f"/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _resolve),
    ("GET", f"/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _resolve),
    ("POST", f"/api/models/{_NAME}/preupload/{_REVISION}", _preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", _lfs_put),
    ("POST", f"/api/models/{_NAME}/commit/{_REVISION}", _make_commit),
    ("POST", f"/api/models/{_NAME}/tag/{_REVISION}", _tag),
]


def environment(hub, cache, token=None):
    """The environment in which another process uses `hub`."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "no-token"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
    }
    return settings if token is None else settings | {"HF_TOKEN": token}


def use(hub, cache, monkeypatch, token=None):
    """Points this process's client, which read its settings, to `hub`."""
    url = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "no-token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_ETAG_TIMEOUT": 1,
        "HF_HUB_DOWNLOAD_TIMEOUT": 1,
    }.items():
        monkeypatch.setattr(constants, name, value)
    # Before it tries again, the client waits a second.
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
