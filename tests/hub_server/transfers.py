"""Endpoints that move contents: files by revision and path, LFS objects, and Xet's content-addressed store."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from tests.hub_server.api import MODEL
from tests.hub_server.git_repository import Entry, Repository
from tests.hub_server.responses import ApiError, byte_range, content_response
from tests.hub_server.routing import Call, Row
from tests.hub_server.storage import Ticket

XET_TOKEN_SECONDS = 3600


def lfs_url(call: Call, ticket: Ticket) -> str:
    return f"{call.storage_origin}/_storage/lfs/{call.storage.issue(ticket)}"


def resolve(call: Call) -> Response:
    """Large files are somewhere else; small ones are read from git, by way of a redirect within the Hub."""
    repository = call.repository()
    commit = repository.resolve(call.parts["revision"])
    entry = repository.file(commit, call.parts["path"])
    if entry.sha256:
        return _redirect_to_storage(call, repository, commit, entry)
    place = f"/api/resolve-cache/models/{repository.id}/{commit}/{quote(entry.path)}"
    headers = {"X-Repo-Commit": commit, "ETag": f'"{entry.oid}"', "Location": place}
    return Response("Temporary Redirect", 307, headers)


def _redirect_to_storage(call: Call, repository: Repository, commit: str, entry: Entry) -> Response:
    location = lfs_url(call, Ticket("download", entry.sha256 or "", entry.size))
    headers = {
        "X-Repo-Commit": commit,
        "ETag": f'"{entry.oid}"',
        "X-Linked-ETag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size),
        "Accept-Ranges": "bytes",
        "Location": location,
    }
    if xet_hash := call.storage.xet_hash(entry):
        refresh = f"{call.origin}/api/models/{repository.id}/xet-read-token/{commit}"
        headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{refresh}>; rel="xet-auth"'}
    return Response(f"Found. Redirecting to {location}", 302, headers)


def resolve_cache(call: Call) -> Response:
    repository = call.repository()
    commit = repository.resolve(call.parts["revision"])
    entry = repository.file(commit, call.parts["path"])
    content = call.storage.served(entry.oid, repository.blob(entry.oid))
    headers = {"X-Repo-Commit": commit, "ETag": f'"{entry.oid}"'}
    return content_response(content, call.request.headers.get("range"), headers)


def lfs_batch(call: Call) -> Response:
    """Where to put each object, unless it is there already."""
    asked = call.json("objects")
    if asked.get("operation") != "upload":
        raise ApiError(400, "Only uploads are answered here")
    repository = call.repository(write=True)
    objects = [_upload(call, repository, wanted["oid"], wanted["size"]) for wanted in asked["objects"]]
    answer = {"transfer": "basic", "objects": objects}
    return JSONResponse(answer, media_type="application/vnd.git-lfs+json")


def _upload(call: Call, repository: Repository, sha256: str, size: int) -> dict[str, Any]:
    row: dict[str, Any] = {"oid": sha256, "size": size, "authenticated": True}
    if call.storage.lfs.size(sha256) is None:
        put = lfs_url(call, Ticket("upload", sha256, size))
        verify = f"{call.origin}/{repository.id}.git/info/lfs/objects/verify"
        row["actions"] = {"upload": {"href": put, "header": {}}, "verify": {"href": verify, "header": {}}}
    return row


def lfs_verify(call: Call) -> Response:
    call.repository(write=True)
    asked = call.json("oid", "size")
    if call.storage.lfs.size(asked["oid"]) != asked["size"]:
        raise ApiError(404, "Object does not exist")
    return JSONResponse({})


def refuse_token(call: Call) -> None:
    """Signed URLs are another host's: a token that arrives there has leaked."""
    if "authorization" in call.request.headers:
        raise ApiError(400, "The token of the Hub was sent to its storage")


def put_object(call: Call) -> Response:
    refuse_token(call)
    ticket = call.storage.ticket(call.parts["ticket"], "upload")
    if len(call.body) != ticket.size:
        raise ApiError(400, "The content has another size than was announced")
    call.storage.lfs.add(call.body, ticket.sha256)
    return Response(status_code=200)


def get_object(call: Call) -> Response:
    refuse_token(call)
    sha256 = call.storage.ticket(call.parts["ticket"], "download").sha256
    content = call.storage.served(sha256, call.storage.lfs.read(sha256))
    return content_response(content, call.request.headers.get("range"), {"ETag": f'"{sha256}"'})


def xet_read_token(call: Call) -> Response:
    call.repository()
    return _xet_token(call, Ticket("read"))


def xet_write_token(call: Call) -> Response:
    call.repository(write=not call.asks_for("create_pr"))
    call.writer()
    return _xet_token(call, Ticket("write"))


def _xet_token(call: Call, ticket: Ticket) -> Response:
    """In headers for downloads, and in the body for uploads: the client is two programs."""
    if not call.storage.xet:
        raise ApiError(404, "Not Found")
    url, token = f"{call.origin}/_cas", f"xet_{call.storage.issue(ticket)}"
    expires = int(time.time()) + XET_TOKEN_SECONDS
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": expires}, headers=headers)


def check_xet_token(call: Call, *purposes: str) -> None:
    header = call.request.headers.get("authorization", "")
    call.storage.ticket(header.removeprefix("Bearer ").removeprefix("xet_"), *purposes)


def add_xorb(call: Call) -> Response:
    check_xet_token(call, "write")
    return JSONResponse({"was_inserted": call.storage.chunks.add_xorb(call.parts["xorb"], call.body)})


def add_shard(call: Call) -> Response:
    """Its files are put together at once, so they can be had through LFS too."""
    check_xet_token(call, "write")
    for sha256, content in call.storage.chunks.add_shard(call.body).items():
        call.storage.lfs.add(content, sha256)
    return JSONResponse({"result": 1})


def reconstruction(call: Call) -> Response:
    check_xet_token(call, "read", "write")
    chunks, name = call.storage.chunks, call.parts["file"]
    size = sum(term.length for term in chunks.terms(name))
    wanted = byte_range(call.request.headers.get("range"), size) or (0, size - 1)
    return JSONResponse(
        chunks.reconstruction(name, wanted, lambda xorb: f"{call.storage_origin}/_storage/xorbs/{xorb}")
    )


def get_xorb(call: Call) -> Response:
    refuse_token(call)
    return content_response(call.storage.chunks.served(call.parts["xorb"]), call.request.headers.get("range"), {})


LFS = "/{owner}/{name}.git/info/lfs/objects"
ROWS: list[Row] = [
    ("GET", "/{owner}/{name}/resolve/{revision}/{path*}", resolve),
    ("GET", "/api/resolve-cache/models/{owner}/{name}/{revision}/{path*}", resolve_cache),
    ("POST", LFS + "/batch", lfs_batch),
    ("POST", LFS + "/verify", lfs_verify),
    ("PUT", "/_storage/lfs/{ticket}", put_object),
    ("GET", "/_storage/lfs/{ticket}", get_object),
    ("GET", "/_storage/xorbs/{xorb}", get_xorb),
    ("GET", MODEL + "/xet-read-token/{revision}", xet_read_token),
    ("GET", MODEL + "/xet-write-token/{revision}", xet_write_token),
    ("POST", "/_cas/v1/xorbs/default/{xorb}", add_xorb),
    ("POST", "/_cas/v1/shards", add_shard),
    ("GET", "/_cas/v2/reconstructions/{file}", reconstruction),
]
"""Other paths below /_cas are not there on purpose: the client falls back to these when it gets a 404."""
