"""The command `shardfs`: a table of commands, each imported only when it is run.

The rules that hold for all of them are in `shardfs.cli.frame`: exit status 0, 1 or 2; an expected failure is one line
on stderr; a bug is one line and a hint, with the traceback behind `--debug`.
"""

import click

from shardfs import __version__
from shardfs.cli.frame import CommandTable

COMMANDS = {
    "demo": "Start a small cluster here, with a sample model on a mount.",
    "node": "Run a chunk server.",
    "put": "Upload a file or folder as a new generation of a model.",
    "import": "Publish a model where it lies, on S3, HDFS, WebDAV or in a folder.",
    "mount": "Show the models as files.",
    "umount": "Drain and unmount.",
    "ls": "List the models.",
    "info": "What a model consists of.",
    "plan": "Which node serves how much of a model.",
    "get": "Download a model to a local folder.",
    "rm": "Delete a model.",
    "versions": "The generations of a model.",
    "status": "The nodes and their health.",
}
"""Every command, in the order of the help, with its line there: module `shardfs.cli.<name>`, attribute `command`."""


@click.group(
    cls=CommandTable,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Completion: eval "$(_SHARDFS_COMPLETE=bash_source shardfs)" (or zsh_source, fish_source).',
)
@click.version_option(__version__, message="shardfs %(version)s")
@click.option("--debug", is_flag=True, help="Log everything, and show the traceback of an unexpected error.")
@click.pass_context
def main(context: click.Context, *, debug: bool) -> None:
    """One directory over many machines: models cut in chunks, placed by hash, read in parallel.

    Start with `shardfs demo`.
    """
    from shardfs.cli.logs import log_to_stderr

    context.ensure_object(dict)["debug"] = debug
    log_to_stderr(debug=debug)
