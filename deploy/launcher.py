"""Becomes the command in its arguments, tied to its parent's life; run as a script, never imported.

A script rather than `preexec_fn`: code between fork and exec may deadlock in a threaded parent.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent_pid = int(sys.argv[1])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:  # the parent died before the kernel was told
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
