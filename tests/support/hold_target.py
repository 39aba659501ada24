"""Take a target, say so, and keep it until the input ends: `python -m tests.support.hold_target TARGET`."""

import sys

from flows.engine.target.file_lock import one_writer

if __name__ == "__main__":
    with one_writer(sys.argv[1], holder="flow run amber-otter"):
        print("held", flush=True)
        sys.stdin.read()
