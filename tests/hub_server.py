"""A Hub on this machine: what the client of huggingface_hub needs to create, fill, read and guard model repositories.

    with HubServer(tokens={"hf_alice": "alice"}) as hub:
        hub.add("alice/melody", folder)
        hub.run("...from_pretrained('alice/melody')", cache=tmp_path)

It answers the client's own requests: repositories with commits, branches and tags; small files within the commit, large
ones through Git LFS; private repositories that strangers are told do not exist. `requests` lists what was asked.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE_FILES = (".safetensors", ".bin", ".wav", ".flac")
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)

Files = dict[str, bytes]


@dataclass
class Repository:
    """One model repository; a revision is a branch, a tag or a commit."""

    owner: str
    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files, message: str = "") -> str:
        """The name of the new commit, which `branch` now points to."""
        digest = hashlib.sha1(repr((self.refs.get(branch), message)).encode())
        for path in sorted(files):
            digest.update(path.encode() + b"\0" + files[path] + b"\0")
        self.commits[digest.hexdigest()] = dict(files)
        self.refs[branch] = digest.hexdigest()
        return digest.hexdigest()

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Reply(Exception):
    """Ends a request: 200 with JSON unless told otherwise."""

    status: int = 200
    body: bytes | dict | list = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, code: str, **headers: str) -> Reply:
    return Reply(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code, **headers})


class HubServer:
    """Serves on a free port of 127.0.0.1 while the context is open. `tokens`: token -> name of its user."""

    def __init__(self, tokens: dict[str, str] | None = None):
        self.tokens = tokens or {}
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}  # sha256 -> content
        self.requests: list[tuple[str, str]] = []  # (method, path)

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, cache: str | Path, token: str | None = None, **others: str) -> dict[str, str]:
        """Variables with which a new process uses this Hub, this cache and this token, and nothing else."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return variables | others

    def run(self, code: str, *arguments: str, cache: str | Path, token: str | None = None, **others: str) -> str:
        """What `code` prints in a new process that uses this Hub; `arguments` are its sys.argv[1:]."""
        environment = os.environ | self.environment(cache, token, **others)
        code = "import sys, warnings\nwarnings.simplefilter('error', RuntimeWarning)\n" + code
        command = [sys.executable, "-c", code, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def add(self, repo_id: str, folder: str | Path, *, private: bool = False) -> str:
        """Put a folder on the Hub, as a new repository or a new commit; gives the commit's name."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
        owner = repo_id.partition("/")[0]
        return self.repositories.setdefault(repo_id, Repository(owner, private)).commit("main", files)

    def files(self, repo_id: str, revision: str = "main") -> Files:
        repository = self.repositories[repo_id]
        return repository.commits[repository.resolve(revision)]

    def downloads(self) -> set[str]:
        """Paths within repositories whose content was asked for."""
        return {path.split("/", 5)[5] for method, path in self.requests if method == "GET" and "/resolve/" in path}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.hub.requests.append((self.command, unquote(url.path)))
        self.content = self.read_content()
        try:
            self.answer(url.path)
        except Reply as reply:
            self.send(reply)

    do_HEAD = do_POST = do_PUT = do_GET

    def read_content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, reply: Reply) -> None:
        is_json = not isinstance(reply.body, bytes)
        body = json.dumps(reply.body).encode() if is_json else reply.body
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json" if is_json else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    # ---- who asks, and for what -------------------------------------------------------------------------------------

    def user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise Reply(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        return self.hub.tokens.get(token)

    def repository(self, repo_id: str, *, write: bool = False) -> Repository:
        user, repository = self.user(), self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and user != repository.owner):
            raise refusal(404 if user else 401, "RepoNotFound")
        if write and user != repository.owner:
            raise refusal(403 if user else 401, "Forbidden")
        return repository

    def revision(self, repository: Repository, revision: str) -> tuple[str, Files]:
        commit = repository.resolve(revision)
        if commit is None:
            raise refusal(404, "RevisionNotFound")
        return commit, repository.commits[commit]

    def answer(self, path: str) -> None:
        name = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
        routes = {
            r"POST /api/repos/create": self.create,
            r"POST /api/validate-yaml": self.validate_yaml,
            r"GET /api/whoami-v2": self.whoami,
            rf"GET /api/models/{name}(/revision/(?P<revision>.+))?": self.info,
            rf"GET /api/models/{name}/tree/(?P<revision>.+)": self.tree,
            rf"POST /api/models/{name}/preupload/(?P<revision>.+)": self.preupload,
            rf"POST /api/models/{name}/commit/(?P<revision>.+)": self.commit,
            rf"POST /api/models/{name}/(?P<kind>branch|tag)/(?P<ref>.+)": self.create_ref,
            rf"POST /{name}.git/info/lfs/objects/batch": self.lfs_batch,
            r"PUT /lfs/(?P<oid>[0-9a-f]{64})": self.lfs_put,
            rf"GET /{name}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": self.resolve,
        }
        request = f"{'GET' if self.command == 'HEAD' else self.command} {path}"
        for pattern, method in routes.items():
            if match := re.fullmatch(pattern, request):
                method(**{k: unquote(v) for k, v in match.groupdict().items() if v is not None})
        raise refusal(404, "NotFound")

    # ---- repositories -----------------------------------------------------------------------------------------------

    def create(self) -> None:
        asked, user = json.loads(self.content), self.user()
        owner = asked["organization"] or user
        if user is None or owner != user:
            raise refusal(403 if user else 401, "Forbidden")
        repo_id = f"{owner}/{asked['name']}"
        exists = repo_id in self.hub.repositories
        if not exists:
            self.hub.repositories[repo_id] = Repository(owner, asked.get("visibility") == "private")
            self.hub.repositories[repo_id].commit("main", {".gitattributes": b""}, "initial commit")
        raise Reply(409 if exists else 200, {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id})

    def validate_yaml(self) -> None:
        front_matter = FRONT_MATTER.match(json.loads(self.content)["content"])
        try:
            data = yaml.safe_load(front_matter[1])
            assert isinstance(data, dict)
        except (TypeError, AssertionError, yaml.YAMLError) as error:
            raise Reply(400, {"errors": [{"message": repr(error)}], "warnings": []}) from error
        raise Reply(body={"errors": [], "warnings": []})

    def whoami(self) -> None:
        if (user := self.user()) is None:
            raise refusal(401, "Unauthorized")
        raise Reply(body={"type": "user", "name": user, "orgs": []})

    def info(self, repo_id: str, revision: str = "main") -> None:
        repository = self.repository(repo_id)
        commit, files = self.revision(repository, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        about = {"_id": commit[:24], "id": repo_id, "modelId": repo_id, "sha": commit, "private": repository.private}
        raise Reply(body=about | {"siblings": siblings, "tags": []})

    def tree(self, repo_id: str, revision: str) -> None:
        _, files = self.revision(self.repository(repo_id), revision)
        raise Reply(body=[self.entry(path, content) for path, content in sorted(files.items())])

    def entry(self, path: str, content: bytes) -> dict:
        entry: dict = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if path.endswith(LARGE_FILES):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def create_ref(self, repo_id: str, kind: str, ref: str) -> None:
        """A branch from `startingPoint`, or a tag on the revision in the path."""
        repository, asked = self.repository(repo_id, write=True), json.loads(self.content)
        name, start = (ref, asked.get("startingPoint", "main")) if kind == "branch" else (asked["tag"], ref)
        if name in repository.refs:
            raise refusal(409, "RefExists")
        repository.refs[name], _ = self.revision(repository, start)
        raise Reply(body={})

    # ---- upload -----------------------------------------------------------------------------------------------------

    def preupload(self, repo_id: str, revision: str) -> None:
        _, files = self.revision(self.repository(repo_id, write="create_pr" not in self.query), revision)
        answers = []
        for asked in json.loads(self.content)["files"]:
            mode = "lfs" if asked["path"].endswith(LARGE_FILES) else "regular"
            known = files.get(asked["path"])
            oid = None if known is None else self.entry(asked["path"], known).get("lfs", {}).get("oid", git_hash(known))
            answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise Reply(body={"files": answers})

    def lfs_batch(self, repo_id: str) -> None:
        self.repository(repo_id)
        objects = []
        for asked in json.loads(self.content)["objects"]:
            missing = asked["oid"] not in self.hub.uploads
            upload = {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}} if missing else {}
            objects.append({"oid": asked["oid"], "size": asked["size"]} | upload)
        raise Reply(body={"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise refusal(400, "ContentMismatch")
        self.hub.uploads[oid] = self.content
        raise Reply()

    def commit(self, repo_id: str, revision: str) -> None:
        """One line of JSON for the message and one for each file; with `create_pr`, on a branch of its own."""
        as_pr = "create_pr" in self.query
        repository = self.repository(repo_id, write=not as_pr)
        commit, files = self.revision(repository, revision)
        files, message = dict(files), ""
        for line in self.content.splitlines():
            key, value = json.loads(line).values()
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.uploads:
                    raise refusal(400, "LfsFileNotUploaded")
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise refusal(400, f"Unknown operation {key}")
        if as_pr:
            revision = f"refs/pr/{1 + sum(ref.startswith('refs/pr/') for ref in repository.refs)}"
            repository.refs[revision] = commit
        commit = repository.commit(revision, files, message)
        url = f"{self.hub.endpoint}/{repo_id}"
        number = revision.rpartition("/")[2]
        pr = {"pullRequestUrl": f"{url}/discussions/{number}"} if as_pr else {}
        raise Reply(body={"success": True, "commitOid": commit, "commitUrl": f"{url}/commit/{commit}"} | pr)

    # ---- download ---------------------------------------------------------------------------------------------------

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        commit, files = self.revision(self.repository(repo_id), revision)
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            raise refusal(404, "EntryNotFound", **headers)
        content = files[path]
        lfs = self.entry(path, content).get("lfs")  # the real Hub redirects these to a content network
        raise Reply(200, content, headers | {"ETag": f'"{lfs["oid"] if lfs else git_hash(content)}"'})


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
