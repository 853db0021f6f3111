"""What the HDFS library says, as people read it. Its texts here are those of real servers."""

import pytest

from shardfs.errors import Denied, StoreError, Unavailable
from shardfs.store.hdfs_failure import failure

RPC = 'RPCError("org.apache.hadoop.{}", "{}")'

HINT = (
    "a url without a port names a name service of the hdfs-site.xml in HADOOP_CONF_DIR;"
    " a NameNode is written host:port, such as namenode:8020"
)


@pytest.mark.parametrize(
    ("said", "kind", "shown"),
    [
        (
            RPC.format(
                "security.AccessControlException",
                'Permission denied: user=x, access=WRITE, inode=\\"/p\\":root:g:drwxr-xr-x\\n\\tat A.b(C.java:3)\\n',
            ),
            Denied,
            'AccessControlException: Permission denied: user=x, access=WRITE, inode="/p":root:g:drwxr-xr-x',
        ),
        (RPC.format("hdfs.A$B", "\\n\\tone\\\\two\\r\\nthree"), Unavailable, "A$B: one\\two"),
        (RPC.format("hdfs.A", "not closed\\n")[:-2], Unavailable, "A: not closed"),
        (RPC.format("hdfs.A", "x" * 5000), Unavailable, "A: " + "x" * 197),
        ('InvalidArgument("what is it\\n\\tat")', Unavailable, "InvalidArgument: what is it"),
        (
            'InvalidArgument("No NameNode hosts found")',
            Unavailable,
            f"InvalidArgument: No NameNode hosts found ({HINT})",
        ),
        ("of 5 bytes 3 are there", Unavailable, "of 5 bytes 3 are there"),
        ("\n\n", Unavailable, "RuntimeError"),
    ],
)
def test_one_line_that_people_can_read(said: str, kind: type[StoreError], shown: str) -> None:
    error = failure("far", "stat", RuntimeError(said))
    assert type(error) is kind
    assert str(error) == f"node far: stat: {shown}"
