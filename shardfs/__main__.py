"""`python -m shardfs` is the command `shardfs`."""

from shardfs.cli import main

if __name__ == "__main__":
    main(prog_name="shardfs")
