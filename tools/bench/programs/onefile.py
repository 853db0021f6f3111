"""Holds one file open and reads from it when told to: `onefile.py PATH`.

Commands on standard input, one answer line each:

    read          one block at the next place: {"seconds", "errno"}, errno 0 for a good read
    until-good    the same, again and again until it is good: {"seconds"} from the command on, at most 60
"""

import json
import os
import sys
import time
from itertools import count

BLOCK = 256 * 1024
STRIDE = 5 * 1024 * 1024  # beyond read-ahead and the last chunk: each read is a new one
PAUSE_SECONDS = 0.02
LIMIT_SECONDS = 60.0


def main() -> None:
    handle = os.open(sys.argv[1], os.O_RDONLY)
    size = os.fstat(handle).st_size
    places = count(STRIDE, STRIDE)
    print("ready", flush=True)

    def read() -> int:
        try:
            return 0 if os.pread(handle, BLOCK, next(places) % (size - BLOCK)) else -1
        except OSError as error:
            return error.errno or -1

    for line in sys.stdin:
        started = time.monotonic()
        number = read()
        while line.strip() == "until-good" and number and time.monotonic() - started < LIMIT_SECONDS:
            time.sleep(PAUSE_SECONDS)
            number = read()
        print(json.dumps({"seconds": time.monotonic() - started, "errno": number}), flush=True)


if __name__ == "__main__":
    main()
