"""How many CPU cores this process may use."""

import os


def num_cores() -> int:
    """Those of its affinity where the system knows one, else all of the machine."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
