"""The Hub's interface: the routes that the clients use, who may call them, and their responses."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlencode

from fakes.hub.http import Connection, Fault, Request
from fakes.hub.storage import Blob, Commit, HubError, Repository, front_matter, matches

if TYPE_CHECKING:
    from fakes.hub.server import LocalHub

Entry = dict[str, object]


class HubConnection(Connection):
    """Finds the route of each request, checks access and responds as the Hub does."""

    hub: LocalHub

    def receive(self, request: Request) -> Fault:
        """Log a request and return its fault."""
        return self.hub.receive(request)

    def respond(self) -> None:
        """Serve the route of the request, if its user may."""
        method = "GET" if self.command == "HEAD" else self.command
        for allowed, access, pattern, name in _ROUTES:
            if method == allowed and (found := pattern.fullmatch(self.path_only)):
                values: dict[str, object] = {key: unquote(text or "") for key, text in found.groupdict().items()}
                if "name" in values:
                    kind = str(values.pop("kind")).strip("/").removesuffix("s") or "model"
                    repo = self.hub.repository(kind, str(values.pop("name")))
                    values["repo"] = repo
                    if access:
                        self._check_access(repo, write=access == "write")
                getattr(self, f"_{name}")(**values)
                return
        raise HubError(501, f"This Hub does not serve {self.command} {self.path_only}")

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _user(self) -> str | None:
        token = self._token()
        if token and token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def _signed_in(self) -> str:
        user = self._user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return user

    def _may_read(self, repo: Repository) -> bool:
        user = self._user()
        return user is not None and (user == repo.owner or (user, repo.name) in self.hub.granted)

    def _check_access(self, repo: Repository, write: bool) -> None:
        user = self._user()
        if not repo.exists or (repo.name in self.hub.private and not self._may_read(repo)):
            message = "Invalid username or password." if user is None else "Repository not found"
            raise HubError(401 if user is None else 404, message, "RepoNotFound")
        if write:
            self._check_write(repo.owner)

    def _check_write(self, owner: str) -> None:
        user = self._signed_in()
        if self._token() in self.hub.read_only_tokens:
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if user != owner:
            raise HubError(403, f'You don\'t have the rights to write under the namespace "{owner}"')

    def _check_gate(self, repo: Repository) -> None:
        if repo.name in self.hub.gated and not self._may_read(repo):
            status = 401 if self._user() is None else 403
            raise HubError(status, f"Access to {repo.kind} {repo.name} is restricted.", "GatedRepo")

    def _whoami(self) -> None:
        user = self._signed_in()
        role = "read" if self._token() in self.hub.read_only_tokens else "write"
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        self.send_json({"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": auth})

    def _create(self) -> None:
        asked, user = json.loads(self.body()), self._signed_in()
        owner = asked.get("organization") or user
        self._check_write(owner)
        repo = self.hub.repository(asked.get("type", "model"), f"{owner}/{asked['name']}")
        url = self._web(repo)
        if repo.exists:
            raise HubError(409, f"You already created this {repo.kind} repo", details={"url": url})
        repo.create(owner)
        if asked.get("visibility") == "private":
            self.hub.private.add(repo.name)
        self.send_json({"url": url, "name": repo.name, "id": repo.name})

    def _validate_yaml(self) -> None:
        content = json.loads(self.body())["content"]
        if not content.startswith("---"):
            warning = {"message": "empty or missing yaml metadata in repo card"}
            self.send_json({"errors": [], "warnings": [warning]})
        elif "\n---" not in content:
            error = {"message": "The metadata is not closed by ---"}
            self.send_json({"errors": [error], "warnings": []}, 400)
        else:
            self.send_json({"errors": [], "warnings": []})

    def _info(self, repo: Repository, rev: str) -> None:
        commit = repo.resolve(rev or "main")
        card = front_matter(self._text(commit, "README.md"))
        tags = card.get("tags", [])
        info: Entry = {"_id": repo.name, "id": repo.name, "author": repo.owner, "sha": commit.sha}
        info["private"] = repo.name in self.hub.private
        info["gated"] = "auto" if repo.name in self.hub.gated else False
        info |= {"lastModified": commit.date, "disabled": False, "downloads": 0, "likes": 0}
        info |= {"cardData": card, "tags": tags if isinstance(tags, list) else [tags]}
        info["siblings"] = [self._sibling(path, blob) for path, blob in sorted(commit.tree.items())]
        self.send_json(info)

    def _sibling(self, path: str, blob: Blob) -> Entry:
        if not _is_true(self.query.get("blobs")):
            return {"rfilename": path}
        lfs = {"lfs": {"sha256": blob.sha256, **blob.lfs_sizes}} if blob.lfs else {}
        return {"rfilename": path, "size": blob.size, "blobId": blob.oid, **lfs}

    def _auth_check(self, repo: Repository, write: str) -> None:
        self._check_gate(repo)
        if write:
            self._check_write(repo.owner)
        self.send_json({})

    def _refs(self, repo: Repository) -> None:
        found = {
            group: [{"name": name, "ref": f"refs/{group}/{name}", "targetCommit": sha} for name, sha in refs.items()]
            for group, refs in repo.refs.items()
        }
        self.send_json({"branches": found["heads"], "tags": found["tags"], "converts": [], "pullRequests": []})

    def _add_tag(self, repo: Repository, rev: str) -> None:
        self._add_ref(repo, "tags", json.loads(self.body())["tag"], rev)

    def _add_branch(self, repo: Repository, rev: str) -> None:
        self._add_ref(repo, "heads", rev, json.loads(self.body()).get("startingPoint", "main"))

    def _add_ref(self, repo: Repository, group: str, name: str, start: str) -> None:
        sha = repo.resolve(start).sha
        if name in repo.refs[group]:
            raise HubError(409, f"{'Tag r' if group == 'tags' else 'R'}eference exists already")
        repo.set_ref(group, name, sha)
        self.send_json({})

    def _delete_ref(self, repo: Repository, group: str, rev: str) -> None:
        key = "tags" if group == "tag" else "heads"
        if rev not in repo.refs[key]:
            raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        repo.set_ref(key, rev, None)
        self.send_json({})

    def _commits(self, repo: Repository, rev: str) -> None:
        history = repo.history(repo.resolve(rev).sha)
        self._page([{**_title(made), "message": "", "authors": [{"user": made.author}]} for made in history])

    def _tree(self, repo: Repository, rev: str, path: str) -> None:
        commit, path = repo.resolve(rev), path.strip("/")
        below = f"{path}/" if path else ""
        entries = {name: entry for name, entry in commit.entries().items() if name.startswith(below)}
        if path and not entries:
            raise HubError(404, f"{path} does not exist on {rev}", "EntryNotFound")
        if not _is_true(self.query.get("recursive")):
            entries = {name: entry for name, entry in entries.items() if "/" not in name[len(below) :]}
        self._page(self._expand(repo, commit, self._with_xet(entries), self.query.get("expand")))

    def _paths_info(self, repo: Repository, rev: str) -> None:
        asked, commit = parse_qs(self.body().decode()), repo.resolve(rev)
        paths = {path.strip("/") for path in asked.get("paths", [])}
        entries = {path: entry for path, entry in commit.entries().items() if path in paths}
        self.send_json(self._expand(repo, commit, self._with_xet(entries), asked.get("expand", [""])[0]))

    def _with_xet(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        hashes = self.hub.xet.hashes if self.hub.xet else {}
        found = {path: hashes.get(entry.get("lfs", {}).get("oid")) for path, entry in entries.items()}
        return {path: entry | ({"xetHash": found[path]} if found[path] else {}) for path, entry in entries.items()}

    def _expand(
        self, repo: Repository, commit: Commit, entries: Mapping[str, Entry], expand: str | None
    ) -> list[Entry]:
        if not _is_true(expand):
            return list(entries.values())
        return [{**entry, "lastCommit": _title(repo.last_change(commit, path))} for path, entry in entries.items()]

    def _page(self, items: list[Entry]) -> None:
        start, size = int(self.query.get("cursor", 0)), self.hub.page_size
        headers = {}
        if start + size < len(items):
            query = urlencode({**self.query, "cursor": start + size})
            headers["Link"] = f'<{self.hub.url}{self.path_only}?{query}>; rel="next"'
        self.send_json(items[start : start + size], 200, headers)

    def _preupload(self, repo: Repository, rev: str) -> None:
        asked, commit = json.loads(self.body()), repo.resolve(rev)
        ignored = asked.get("gitIgnore") or self._text(commit, ".gitignore")
        patterns = [line for line in ignored.splitlines() if line.strip() and not line.startswith("#")]
        files = []
        for file in asked["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            lfs, known = repo.uses_lfs(commit.tree, path, file["size"], sample), commit.tree.get(path)
            response = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
            response |= {"shouldIgnore": matches(path, patterns), **({"oid": known.etag} if known else {})}
            files.append(response)
        self.send_json({"files": files, "commitOid": commit.sha})

    def _xet_token(self, repo: Repository, access: str, rev: str) -> None:
        if self.hub.xet is None:
            raise HubError(501, "This Hub has no Xet store")
        if access == "write":
            self._check_write(repo.owner)
        self._check_gate(repo)
        token = {"accessToken": "xet", "exp": int(time.time()) + 3600, "casUrl": self.hub.xet.url}
        names = {"accessToken": "X-Xet-Access-Token", "exp": "X-Xet-Token-Expiration", "casUrl": "X-Xet-Cas-Url"}
        self.send_json(token, headers={names[key]: str(value) for key, value in token.items()})

    def _lfs_batch(self, repo: Repository) -> None:
        objects = []
        for asked in json.loads(self.body())["objects"]:
            found = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if not self.hub.blobs.path(asked["oid"]).is_file():
                upload = {"href": f"{self.hub.storage_url}/lfs/{asked['oid']}?signature={self.hub.signature}"}
                verify = {"href": f"{self._web(repo)}.git/info/lfs/objects/verify"}
                found["actions"] = {"upload": upload, "verify": verify}
            objects.append(found)
        self.send_json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, oid: str) -> None:
        self._check_signature()
        self.hub.blobs.write(self.chunks(), expected=oid)
        self.send(200, {"ETag": f'"{oid}"'}, [], 0)

    def _lfs_verify(self, repo: Repository) -> None:
        asked = json.loads(self.body())
        stored = repo.blobs.path(asked["oid"])
        if not stored.is_file() or stored.stat().st_size != asked["size"]:
            raise HubError(404, "Object not found")
        self.send_json({})

    def _commit(self, repo: Repository, rev: str) -> None:
        if "create_pr" in self.query:
            raise HubError(501, "This Hub has no pull requests")
        if rev not in repo.refs["heads"]:
            raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        operations = [json.loads(line) for line in self.body().splitlines()]
        header, changes = operations[0]["value"], dict[str, Blob | None]()
        for operation in operations[1:]:
            changes |= self._changes(repo, repo.resolve(rev).tree, operation["key"], operation["value"])
        made = repo.commit(
            changes,
            header["summary"],
            branch=rev,
            author=self._signed_in(),
            parent=header.get("parentCommit"),
        )
        url = f"{self._web(repo)}/commit/{made.sha}"
        self.send_json({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})

    def _changes(
        self, repo: Repository, tree: Mapping[str, Blob], key: str, value: Mapping[str, str]
    ) -> Mapping[str, Blob | None]:
        path, blobs = value["path"].rstrip("/"), repo.blobs
        if key == "file":
            return {path: blobs.blob(blobs.write([base64.b64decode(value["content"])]), lfs=False)}
        if key == "lfsFile":
            uploaded = blobs.path(value["oid"])
            if not uploaded.is_file() and not (self.hub.xet and self.hub.xet.download(value["oid"], uploaded)):
                raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
            return {path: blobs.blob(value["oid"], lfs=True)}
        if key not in ("deletedFile", "deletedFolder"):
            raise HubError(400, f"Unknown operation {key}")
        gone = [name for name in tree if name == path]
        if key == "deletedFolder":
            gone = [name for name in tree if name.startswith(f"{path}/")]
        if not gone:
            raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        return dict.fromkeys(gone)

    def _resolve(self, repo: Repository, rev: str, path: str) -> None:
        self._check_gate(repo)
        commit = repo.resolve(rev)
        headers, blob = {"X-Repo-Commit": commit.sha}, commit.tree.get(path)
        if blob is None:
            raise HubError(404, "Entry not found", "EntryNotFound", headers)
        headers["ETag"] = self._etag(blob)
        if not blob.lfs:
            self.send_file(self.hub.blobs.path(blob.sha256), headers)
            return
        headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(blob.size)}
        if self.hub.xet and blob.sha256 in self.hub.xet.hashes:
            route = f"{self.hub.url}/api/{repo.kind}s/{repo.name}/xet-read-token/{commit.sha}"
            headers |= {"X-Xet-Hash": self.hub.xet.hashes[blob.sha256], "Link": f'<{route}>; rel="xet-auth"'}
        place = f"/stored/{repo.kind}s/{repo.name}/{commit.sha}/{quote(path)}?signature={self.hub.signature}"
        self.send(302, {**headers, "Location": f"{self.hub.storage_url}{place}"}, [], 0)

    def _stored(self, repo: Repository, rev: str, path: str) -> None:
        self._check_signature()
        blob = repo.resolve(rev).tree[path]
        self.send_file(self.hub.blobs.path(blob.sha256), {"ETag": self._etag(blob)})

    def _etag(self, blob: Blob) -> str:
        wrong = self.fault.corrupt and self.command == "HEAD"
        return f'"{blob.etag[::-1] if wrong else blob.etag}"'

    def _check_signature(self) -> None:
        if self.query.get("signature") != self.hub.signature:
            raise HubError(403, "Access denied")

    def _web(self, repo: Repository) -> str:
        return f"{self.hub.url}/{'' if repo.kind == 'model' else f'{repo.kind}s/'}{repo.name}"

    def _text(self, commit: Commit, path: str) -> str:
        blob = commit.tree.get(path)
        return self.hub.blobs.path(blob.sha256).read_text(encoding="utf-8") if blob else ""


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() in ("1", "true")


def _title(commit: Commit) -> Entry:
    return {"id": commit.sha, "title": commit.message, "date": commit.date}


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
_WEB = r"/(?P<kind>(?:datasets/|spaces/)?)(?P<name>[^/]+/[^/]+?)"
_REV = r"(?P<rev>[^/]+)"
_PATH = r"(?P<path>.+)"
_ROUTES = [
    (method, access, re.compile(pattern), name)
    for method, access, pattern, name in (
        ("GET", "", r"/api/whoami-v2", "whoami"),
        ("POST", "", r"/api/repos/create", "create"),
        ("POST", "", r"/api/validate-yaml", "validate_yaml"),
        ("GET", "read", rf"{_API}(?:/revision/{_REV})?", "info"),
        ("GET", "read", rf"{_API}/auth-check(?P<write>(?:/write)?)", "auth_check"),
        ("GET", "read", rf"{_API}/refs", "refs"),
        ("POST", "write", rf"{_API}/tag/{_REV}", "add_tag"),
        ("POST", "write", rf"{_API}/branch/{_REV}", "add_branch"),
        ("DELETE", "write", rf"{_API}/(?P<group>tag|branch)/{_REV}", "delete_ref"),
        ("GET", "read", rf"{_API}/commits/{_REV}", "commits"),
        ("GET", "read", rf"{_API}/tree/{_REV}(?P<path>(?:/.*)?)", "tree"),
        ("POST", "read", rf"{_API}/paths-info/{_REV}", "paths_info"),
        ("POST", "write", rf"{_API}/preupload/{_REV}", "preupload"),
        ("POST", "write", rf"{_API}/commit/{_REV}", "commit"),
        ("GET", "read", rf"{_API}/xet-(?P<access>read|write)-token/{_REV}", "xet_token"),
        ("POST", "write", rf"{_WEB}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("POST", "write", rf"{_WEB}\.git/info/lfs/objects/verify", "lfs_verify"),
        ("PUT", "", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("GET", "", rf"/stored{_API.removeprefix('/api')}/{_REV}/{_PATH}", "stored"),
        ("GET", "read", rf"{_WEB}/resolve/{_REV}/{_PATH}", "resolve"),
    )
]
