"""Names the machine and the commit that a result is of; measures nothing."""

from __future__ import annotations

import os
import platform
import subprocess


def machine_name() -> str:
    """Return the cores, the kind of CPU with what the classifier's speed depends on, and Python's version."""
    import torch

    from model import int8

    vectors = torch.backends.cpu.get_cpu_capability()
    kind = f"{vectors} {'with' if int8.is_fast() else 'without'} int8 instructions"
    return f"{os.cpu_count()} cores, {platform.machine()} ({kind}), Python {platform.python_version()}"


def commit() -> str:
    """Return the checkout's commit; empty outside one."""
    shown = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return shown.stdout.strip()
