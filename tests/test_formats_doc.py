"""docs/FORMATS.md against the code: its worked examples are built twice, by the code and from the page's own words."""

import math
import re
import struct
import tomllib
from typing import Any

import msgspec
import pytest
import xxhash
from blake3 import blake3

from shardfs.cache.block_map import Content, block_words, encode_header
from shardfs.core import keys
from shardfs.core.chunk import BLOCK_SIZE, make_header, parse_pointer, verify_chunk
from shardfs.core.cluster import Cluster, Node, parse_cluster
from shardfs.core.digest import Digest, digest_of
from shardfs.core.keys import RefName, parse_key
from shardfs.core.location import SCHEMES, check_url
from shardfs.core.manifest import decode_manifest, make_manifest
from shardfs.core.names import escape, unescape
from shardfs.core.placement import Placement
from shardfs.core.ref import decode_ref, encode_ref
from shardfs.vfs.content import cache_content
from tests.documents import ROOT, blocks, table

PAGE = ROOT / "docs" / "FORMATS.md"


def examples(kind: str) -> list[dict[str, Any]]:
    return [tomllib.loads(text) for info, text in blocks(PAGE) if info == f"toml {kind}"]


def only(kind: str) -> dict[str, Any]:
    (found,) = examples(kind)
    return found


def unhex(pieces: list[str]) -> bytes:
    return bytes.fromhex("".join(pieces))


def plain_of(example: dict[str, Any]) -> bytes:
    if "plain" in example:
        return example["plain"].encode()
    return bytes(range(256)) * example["plain_repeated"] + example["plain_after"].encode()


def test_there_are_examples_of_everything():
    kinds = {info.removeprefix("toml ") for info, _ in blocks(PAGE) if info.startswith("toml ")}
    assert kinds == {"chunk", "external", "manifest", "ref", "escaping", "placement", "cluster", "cache"}
    assert len(examples("chunk")) == 2


@pytest.mark.parametrize("example", examples("chunk"), ids=lambda example: example["name"][:8])
def test_chunk(example: dict[str, Any]):
    plain, header, name = plain_of(example), unhex(example["header"]), example["name"]
    block_size = int.from_bytes(header[8:12], "little")
    digest, made = make_header(plain, block_size)
    assert (digest.hex(), made.encode()) == (name, header)
    verify_chunk(header + plain, Digest.parse(name))
    # By the words of the page.
    cut = [plain[at : at + block_size] for at in range(0, len(plain), block_size)]
    digests = [blake3(block).digest() for block in cut]
    named = blake3(b"shardfs chunk 1\0" + struct.pack("<II", block_size, len(plain)) + b"".join(digests))
    assert named.hexdigest() == name
    entries = b"".join(struct.pack("<I", len(block)) + digest for block, digest in zip(cut, digests, strict=True))
    assert b"SHFC\1\0\0\0" + struct.pack("<II", block_size, len(plain)) + entries == header


def test_external_chunk():
    example, raw = only("external"), examples("chunk")[1]
    pointer, fields = unhex(example["pointer"]), example["fields"]
    header = unhex(raw["header"])
    header = header[:5] + bytes([example["codec"]]) + header[6:]
    name = Digest.parse(raw["name"])
    parsed = verify_chunk(header + pointer, name)
    assert parsed == make_header(plain_of(raw), 4096)[1].as_external()
    found = parse_pointer(parsed, header + pointer, name)
    assert [found.node, found.path, found.offset, found.size, found.tag] == fields
    assert found.encode() == pointer
    # By the words of the page.
    assert msgspec.msgpack.encode(fields) == pointer
    assert len(pointer) < len(plain_of(raw))


def test_manifest():
    example = only("manifest")
    data, name = unhex(example["bytes"]), Digest.parse(example["name"])
    manifest = make_manifest(
        [tuple(file) for file in example["files"]],
        unhex(example["chunks"]),
        created=example["created"],
        folders=example["folders"],
        chunk_size=example["chunk_size"],
        block_size=example["block_size"],
    )
    assert manifest.encode() == data
    assert digest_of(data) == name
    assert decode_manifest(data, name) == manifest
    # By the words of the page.
    fields = [example[key] for key in ("created", "chunk_size", "block_size")]
    body = [*fields, False, example["files"], example["folders"], unhex(example["chunks"])]
    assert b"SHFM\x01" + msgspec.msgpack.encode(body) == data
    first_chunk = plain_of(examples("chunk")[0])
    assert example["chunks"][0] == make_header(b"{}\n")[0].hex()
    assert example["chunks"][1] == make_header(first_chunk)[0].hex() == examples("chunk")[0]["name"]


def test_ref():
    example = only("ref")
    ref = RefName(example["model"], example["generation"], Digest.parse(example["manifest"]))
    assert ref.key == example["name"]
    assert encode_ref(ref) == example["content"].encode()
    assert decode_ref(example["content"].encode(), parse_key(example["name"])) == ref
    assert example["manifest"] == only("manifest")["name"]


def test_name_patterns_are_those_of_the_code():
    text = PAGE.read_text()
    shown = [line.split()[0] for line in text.splitlines() if re.match(r" {4}\w+/[^ ]*\[", line)]
    assert shown == [keys._CHUNK.pattern, keys._MANIFEST.pattern, keys._REF.pattern]


def test_escaping():
    pairs = only("escaping")
    assert pairs
    for model, segment in pairs.items():
        assert escape(model) == segment
        assert unescape(segment) == model


def test_placement():
    example = only("placement")
    keys_of_a_node = ("id", "zone", "weight")
    nodes = tuple(Node(url=f"http://{node['id']}", **{k: node[k] for k in keys_of_a_node}) for node in example["nodes"])
    placement = Placement(Cluster(nodes, example["replicas"], 4 * 2**20))
    chunk = Digest.parse(example["chunk"])
    assert placement.scores(chunk) == [node["score"] for node in example["nodes"]]
    assert [node.id for node in placement.ranking(chunk)] == example["ranking"]
    # By the words of the page.
    for node in example["nodes"]:
        seed = xxhash.xxh3_64_intdigest(node["id"].encode())
        found = xxhash.xxh3_64_intdigest(chunk, seed)
        score = -node["weight"] / math.log((found + 0.5) / 2**64)
        assert (f"{seed:016x}", f"{found:016x}", score) == (node["seed"], node["hash"], node["score"])


def test_cluster_file():
    (text,) = (text for info, text in blocks(PAGE) if info == "toml cluster")
    cluster = parse_cluster(text)
    assert [(node.id, node.state, node.weight) for node in cluster.nodes] == [
        ("a", "active", 1.0),
        ("b", "active", 2.0),
        ("c", "draining", 1.0),
        ("d", "active", 1.0),
    ]


def test_every_key_of_the_cluster_file_has_a_row():
    told = {row[0].strip("`[]") for row in table(PAGE, under="Cluster file")}
    assert {field.name for field in msgspec.structs.fields(Node)} <= told
    assert {"replicas", "chunk_size", "nodes"} <= told


def test_every_scheme_of_a_url_has_a_row():
    kinds = " ".join(row[0] for row in table(PAGE, under="Other kinds of node"))
    assert set(re.findall(r"(\w+)://", kinds)) == set(SCHEMES)
    assert check_url("s3://bucket/prefix?endpoint=http://h:9000&region=r&profile=p").scheme == "s3"


def test_cache_map():
    example, described = only("cache"), only("manifest")
    manifest = decode_manifest(unhex(described["bytes"]), Digest.parse(described["name"]))
    (entry,) = (file for file in manifest.files if file.path == example["file"])
    content = cache_content(manifest, entry)
    head = unhex(example["map_head"])
    assert content.digest.hex() == example["content"]
    assert encode_header(content) == head.ljust(4096, b"\0")
    plain = plain_of(examples("chunk")[0])
    assert block_words(memoryview(plain), BLOCK_SIZE).astype("<u8").tobytes().hex() == example["word"]
    # By the words of the page.
    chunks = unhex(described["chunks"])[32:64]
    sizes = struct.pack("<QII", len(plain), described["chunk_size"], described["block_size"])
    named = blake3(b"shardfs file 1\0" + sizes + chunks).digest()
    assert content == Content(Digest(named), len(plain), described["block_size"])
    assert xxhash.xxh3_64_intdigest(head[:64]).to_bytes(8, "little") == head[64:]
