"""Names of stored objects and digests: only what the functions make, and only from what they accept."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardfs.core.digest import ZERO_DIGEST, Digest, digest_of
from shardfs.core.keys import ObjectKey, RefName, chunk_key, key_digest, manifest_key, parse_key, parse_ref, ref_prefix
from shardfs.core.names import GENERATION_MAX, check_model
from shardfs.errors import InvalidFormat, InvalidName

D = digest_of(b"x")
HEX = str(D)

digests = st.binary(min_size=32, max_size=32).map(Digest)
models = st.text("abz09._-/~é @", min_size=1, max_size=30)
refs = st.builds(RefName, models, st.integers(1, GENERATION_MAX), digests)


def allowed(model: str) -> bool:
    try:
        check_model(model)
    except InvalidName:
        return False
    return True


@given(digests)
def test_digest_text_and_back(digest):
    assert Digest.parse(str(digest)) == digest
    assert len(str(digest)) == 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX[:-1],
        HEX + "0",
        HEX.upper(),
        HEX[:-1] + "g",
        "../" + HEX[3:],
        HEX + "\n",
        " " + HEX[1:],
        "\u0660" * 64,
        "\0" * 64,
    ],
)
def test_refused_digests(text):
    with pytest.raises(InvalidFormat):
        Digest.parse(text)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_digests_have_32_bytes(size):
    with pytest.raises(InvalidFormat):
        Digest(bytes(size))


def test_digest_is_blake3():
    assert str(digest_of(b"")) == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_of(memoryview(b"abc")) == digest_of(bytearray(b"abc")) == digest_of(b"abc")


@given(digests)
def test_chunk_and_manifest_keys(digest):
    assert chunk_key(digest) == f"chunks/{digest.hex()[:2]}/{digest.hex()}"
    assert manifest_key(digest) == f"manifests/{digest.hex()}"
    for key in (chunk_key(digest), manifest_key(digest)):
        assert parse_key(str(key)) == key
        assert isinstance(parse_key(str(key)), ObjectKey)
        assert key_digest(key) == digest
    assert (chunk_key(digest).kind, manifest_key(digest).kind) == ("chunks", "manifests")


@given(refs.filter(lambda ref: allowed(ref.model)))
def test_ref_keys(ref):
    assert parse_ref(ref.key) == ref
    assert parse_key(ref.key) == ref.key
    assert ref.key.kind == "refs"
    assert key_digest(ref.key) == ref.manifest
    assert ref.key.startswith(ref_prefix(ref.model))
    assert ref.key.count("/") == 2


@given(st.lists(refs.filter(lambda ref: allowed(ref.model)), min_size=2, max_size=5))
def test_keys_of_one_model_sort_as_its_refs(listed):
    same = [RefName("m", ref.generation, ref.manifest) for ref in listed]
    assert [parse_ref(key) for key in sorted(ref.key for ref in same)] == sorted(same)


@given(models.filter(allowed), models.filter(allowed))
def test_no_prefix_covers_another_model(one, other):
    if one != other:
        assert not RefName(other, 1, D).key.startswith(ref_prefix(one))


def test_tombstones():
    assert RefName("m", 1, ZERO_DIGEST).deleted
    assert not RefName("m", 1, D).deleted


NOT_KEYS = [
    "",
    "chunks",
    f"chunks/{HEX}",
    f"chunks/{'0' + HEX[0]}/{HEX}",
    f"chunks/{HEX[:2]}/{HEX.upper()}",
    f"chunks/{HEX[:2]}/{HEX}/",
    f"chunks/{HEX[:2]}/{HEX}\n",
    f"chunks/{HEX[:2]}/../{HEX}",
    f"/chunks/{HEX[:2]}/{HEX}",
    f"chunks//{HEX[:2]}/{HEX}",
    f"manifests/{HEX}x",
    "manifests/..",
    f"refs/../{1:016d}-{HEX}",
    f"refs/./{1:016d}-{HEX}",
    f"refs/a/b/{1:016d}-{HEX}",
    f"refs/a~2F/{1:016d}-{HEX}",
    f"refs/a~2f~62/{1:016d}-{HEX}",
    f"refs/~61/{1:016d}-{HEX}",
    f"refs/a/{0:016d}-{HEX}",
    f"refs/a/1-{HEX}",
    f"refs/a/{1:017d}-{HEX}",
    f"refs/a/{1:016d}-{HEX.upper()}",
    f"refs/a/{1:016d}{HEX}",
    f"refs//{1:016d}-{HEX}",
    f"refs/{'a' * 256}/{1:016d}-{HEX}",
    "refs/a/" + "\u0661" * 16 + f"-{HEX}",
    f"refs/a%2F/{1:016d}-{HEX}",
    f"refs/é/{1:016d}-{HEX}",
    f"tmp/{HEX}",
]


@pytest.mark.parametrize("text", NOT_KEYS)
def test_refused_keys(text):
    with pytest.raises(InvalidFormat):
        parse_key(text)


@given(st.text(max_size=120) | st.sampled_from(NOT_KEYS).flatmap(lambda t: st.text(t or "a", max_size=120)))
@example(f"refs/a/{1:016d}-{HEX}")
def test_parsing_refuses_or_gives_back_the_same(text):
    try:
        key = parse_key(text)
    except InvalidFormat:
        return
    assert key == text
