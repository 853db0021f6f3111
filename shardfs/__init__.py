"""shardfs shows models that are sharded over many machines as ordinary files.

This module holds the version and nothing else: importing it costs nothing and starts nothing. Programs use
`shardfs.api`; people use the command `shardfs`.
"""

__version__ = "0.1.0"
