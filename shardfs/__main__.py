"""The program `shardfs`, which is also `python -m shardfs`.

Importing takes longer than anything else in a short command. Until `shardfs.cli.frame.hear_ctrl_c` is called, Ctrl-C
ends the program as it ends one that knows nothing of it.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as for a job in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from shardfs.cli import main

if __name__ == "__main__":
    main(prog_name="shardfs")
