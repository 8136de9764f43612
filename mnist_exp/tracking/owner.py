"""The process that writes a run, and whether it is alive."""

import os
import socket


def process_tags() -> dict[str, str]:
    """What tells later whether this process still lives: host, pid and the start of the process in seconds."""
    import psutil

    return {"host": socket.gethostname(), "pid": str(os.getpid()), "started": str(psutil.Process().create_time())}


def is_alive(tags: dict[str, str]) -> bool:
    """Whether the process of these tags lives on this host."""
    import psutil

    try:
        process = psutil.Process(int(tags["pid"]))
        # A zombie is dead; where nobody collects it, as in many containers, it keeps its number for good.
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(tags["started"])) < 2
    except psutil.AccessDenied:  # another user's, of whom nothing can be told
        return True
    except (psutil.NoSuchProcess, ValueError):
        return False
