import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.digest import ZERO_DIGEST, digest_of
from shardfs.core.keys import RefName, chunk_key
from shardfs.core.objects import size_limit, verify_object
from shardfs.core.ref import REF_BYTES_MAX, decode_ref, encode_ref
from shardfs.errors import InvalidFormat

REF = RefName("team/bert é", 12, digest_of(b"m"))


@pytest.mark.parametrize("ref", [REF, RefName("m", 1, ZERO_DIGEST), RefName("x" * 255, 10**16 - 1, digest_of(b""))])
def test_roundtrip(ref):
    data = encode_ref(ref)
    assert decode_ref(data, ref.key) == ref
    assert decode_ref(memoryview(data), ref.key) == ref
    verify_object(ref.key, data)
    assert len(data) <= size_limit(ref.key) == REF_BYTES_MAX
    assert data.decode().endswith("}\n")


def test_a_ref_explains_itself():
    assert encode_ref(RefName("m", 3, ZERO_DIGEST)).decode() == (
        '{\n  "format": "shardfs-ref-1",\n  "model": "m",\n  "generation": 3,\n  "manifest": "' + "0" * 64 + '"\n}\n'
    )


@pytest.mark.parametrize(
    "other",
    [RefName("team/bert", 12, REF.manifest), RefName(REF.model, 13, REF.manifest), RefName(REF.model, 12, ZERO_DIGEST)],
)
def test_a_misplaced_ref_is_refused(other):
    with pytest.raises(InvalidFormat, match="does not match its name"):
        decode_ref(encode_ref(other), REF.key)


@given(st.binary(max_size=300), st.integers(0, 250), st.integers(0, 7))
def test_damage_is_refused(data, at, bit):
    right = encode_ref(REF)
    bad = bytearray(right)
    bad[at % len(bad)] ^= 1 << bit
    for content in (data, bad, right[:at], right + data + b"x", right.replace(b" ", b"")):
        if bytes(content) != right:
            with pytest.raises(InvalidFormat):
                decode_ref(content, REF.key)


def test_a_chunk_key_is_no_ref():
    with pytest.raises(InvalidFormat):
        decode_ref(encode_ref(REF), chunk_key(digest_of(b"")))
