"""Contents in deduplicated chunks, as Xet has them: xorbs hold chunks, shards say which chunks make up a file."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import lz4.frame

from tests.hub_server.responses import ApiError

CHUNK_HEADER = 8
XORB_FOOTER = b"XETBLOB"
SHARD_HEADER = SHARD_ROW = 48
SHARD_END = b"\xff" * 32
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30
XET_HASH = re.compile(r"[0-9a-f]{64}")
PLAIN, BYTE_GROUPS = 0, 2


@dataclass(frozen=True)
class Chunk:
    """Where it lies in its xorb, header included, how it is compressed, and its length when it is not."""

    start: int
    end: int
    compression: int
    length: int


@dataclass(frozen=True)
class Term:
    """A run of chunks of one xorb, the last one not included: files are rows of such runs."""

    xorb: str
    length: int
    first: int
    last: int


def read_hash(content: bytes) -> str:
    """Four little-endian numbers in hexadecimal: Xet's way to write a hash."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", content))


def chunks_of(xorb: bytes) -> list[Chunk]:
    """Each chunk's header: a version, three bytes of size as stored, one of compression, three of size as is."""
    found, start = [], 0
    while start + CHUNK_HEADER <= len(xorb) and not xorb.startswith(XORB_FOOTER, start):
        stored = int.from_bytes(xorb[start + 1 : start + 4], "little")
        length = int.from_bytes(xorb[start + 5 : start + 8], "little")
        end = start + CHUNK_HEADER + stored
        found.append(Chunk(start, end, xorb[start + 4], length))
        start = end
    return found


def ungroup(content: bytes) -> bytes:
    """The first bytes of all floats, then the second ones, and so on: back in order."""
    groups, rest = divmod(len(content), 4)
    ordered, start = bytearray(len(content)), 0
    for place in range(4):
        end = start + groups + (place < rest)
        ordered[place::4] = content[start:end]
        start = end
    return bytes(ordered)


def decompress(xorb: bytes, chunk: Chunk) -> bytes:
    stored = xorb[chunk.start + CHUNK_HEADER : chunk.end]
    if chunk.compression == PLAIN:
        return stored
    content: bytes = lz4.frame.decompress(stored)
    return ungroup(content) if chunk.compression == BYTE_GROUPS else content


def plain_chunk(content: bytes) -> bytes:
    size = len(content).to_bytes(3, "little")
    return b"\0" + size + bytes([PLAIN]) + size + content


def read_shard(shard: bytes) -> Iterator[tuple[str, list[Term]]]:
    """Files by their Xet hash, each with its terms. What else a shard holds is for deduplication."""
    offset = SHARD_HEADER
    while (row := shard[offset : offset + SHARD_ROW])[:32] != SHARD_END:
        if len(row) < SHARD_ROW:
            raise ApiError(400, "A shard without an end")
        flags, count = struct.unpack_from("<II", row, 32)
        rows = [shard[start : start + SHARD_ROW] for start in range(offset + SHARD_ROW, len(shard), SHARD_ROW)][:count]
        yield read_hash(row[:32]), [Term(read_hash(term[:32]), *struct.unpack_from("<III", term, 36)) for term in rows]
        following = count + (count if flags & HAS_VERIFICATION else 0) + bool(flags & HAS_METADATA)
        offset += SHARD_ROW * (1 + following)


def joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted and disjoint, which the client asks for; several terms may use the same chunk."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


class ChunkStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, list[Term]] = {}
        self._corrupted: dict[str, bytes] = {}
        self.hash_of: dict[str, str] = {}
        """sha256 of a content to its Xet hash."""

    def _path(self, xorb: str) -> Path:
        if not XET_HASH.fullmatch(xorb):
            raise ApiError(400, f"Not a hash: {xorb}")
        return self.folder / xorb

    def add_xorb(self, name: str, content: bytes) -> bool:
        """Whether it is a new one."""
        path = self._path(name)
        if path.exists():
            return False
        path.write_bytes(content)
        return True

    def xorb(self, name: str) -> bytes:
        path = self._path(name)
        if not path.exists():
            raise ApiError(400, f"An unknown xorb: {name}")
        return path.read_bytes()

    def add_shard(self, shard: bytes) -> dict[str, bytes]:
        """Files of the shard, put together, by their sha256."""
        contents = {}
        for name, terms in read_shard(shard):
            content = b"".join(self._content(term) for term in terms)
            sha256 = hashlib.sha256(content).hexdigest()
            contents[sha256] = content
            self._files[name] = terms
            self.hash_of[sha256] = name
        return contents

    def _content(self, term: Term) -> bytes:
        xorb = self.xorb(term.xorb)
        content = b"".join(decompress(xorb, chunk) for chunk in chunks_of(xorb)[term.first : term.last])
        if len(content) != term.length:
            raise ApiError(400, f"A term of {term.length} bytes has {len(content)}")
        return content

    def terms(self, name: str) -> list[Term]:
        if name not in self._files:
            raise ApiError(404, "File not found")
        return self._files[name]

    def reconstruction(self, name: str, wanted: tuple[int, int], url_of: Callable[[str], str]) -> dict[str, Any]:
        """What to fetch to get these bytes of the file, first and last included."""
        rows: list[dict[str, Any]] = []
        ranges: dict[str, list[tuple[int, int]]] = {}
        skipped, position = 0, 0
        for term in self.terms(name):
            chunks = chunks_of(self.served(term.xorb))[term.first : term.last]
            starts = list(accumulate((chunk.length for chunk in chunks), initial=position))
            position = starts.pop()
            needed = [
                index
                for index, (start, chunk) in enumerate(zip(starts, chunks, strict=True))
                if start <= wanted[1] and start + chunk.length > wanted[0]
            ]
            if not needed:
                continue
            if not rows:
                skipped = wanted[0] - starts[needed[0]]
            first, last = term.first + needed[0], term.first + needed[-1] + 1
            length = sum(chunks[index].length for index in needed)
            rows.append({"hash": term.xorb, "range": {"start": first, "end": last}, "unpacked_length": length})
            ranges.setdefault(term.xorb, []).append((first, last))
        xorbs = {xorb: self._fetches(xorb, joined(found), url_of(xorb)) for xorb, found in ranges.items()}
        return {"offset_into_first_range": skipped, "terms": rows, "xorbs": xorbs}

    def _fetches(self, xorb: str, ranges: list[tuple[int, int]], url: str) -> list[dict[str, Any]]:
        chunks = chunks_of(self.served(xorb))
        return [
            {
                "url": url,
                "ranges": [
                    {
                        "chunks": {"start": first, "end": last},
                        "bytes": {"start": chunks[first].start, "end": chunks[last - 1].end - 1},
                    }
                ],
            }
            for first, last in ranges
        ]

    def corrupt(self, name: str) -> None:
        """From now on the first chunk of this file is served with one byte wrong, and so are other files that use it.

        All chunks of its xorb are served as they are: in a compressed one the byte could be what makes it decodable,
        and clients ask for such a xorb again and again.
        """
        term = self.terms(name)[0]
        xorb = self.served(term.xorb)
        contents = [bytearray(decompress(xorb, chunk)) for chunk in chunks_of(xorb)]
        wrong = contents[term.first]
        wrong[len(wrong) // 2] ^= 1
        self._corrupted[term.xorb] = b"".join(plain_chunk(bytes(content)) for content in contents)

    def served(self, name: str) -> bytes:
        return self._corrupted.get(name) or self.xorb(name)
