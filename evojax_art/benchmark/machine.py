"""What a figure was measured with: device, versions, commit."""

import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from evojax_art.runtime.cores import num_cores
from evojax_art.runtime.plan import current_plan

_PACKAGE = Path(__file__).resolve().parents[1]


def describe_machine() -> dict[str, Any]:
    """Device, its number, cores, versions, commit and date, as they go into every result."""
    commit, modified = commit_of_checkout()
    return {
        "device": device_name(),
        "platform": current_plan().platform,
        "devices": jax.local_device_count(),
        "cpus": num_cores(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "evojax_art": version("evojax-art"),
        "commit": commit,
        "modified": modified,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def device_name() -> str:
    """What JAX calls the device; a CPU by its model, of which JAX says nothing."""
    device = current_plan().device
    return _cpu_model() if device.platform == "cpu" else device.device_kind


def commit_of_checkout() -> tuple[str, bool]:
    """The commit this code is of, seven digits, and whether files differ from it.

    An empty text where the package is no checkout of its own; a repository that merely surrounds
    an installed package does not count.
    """
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return "", False
    commit = _git("rev-parse", "--short=7", "HEAD") or ""
    return commit, bool(_git("status", "--porcelain", "."))


def file_stem(machine: dict[str, Any]) -> str:
    """A file name without its ending, from device and commit: `nvidia-h100-80gb-hbm3-2c01727`.

    A CPU's says how many cores there were, a checkout that was edited says so, and without a
    checkout the package's version stands for the commit.
    """
    parts = [machine["device"]]
    if machine["platform"] == "cpu":
        parts.append(f"{machine['cpus']} cores")
    parts.append(machine["commit"][:7] or machine["evojax_art"])
    if machine["modified"]:
        parts.append("modified")
    return "-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts)


def available_bytes() -> float:
    """Memory that is free on the device; infinite where nobody tells."""
    device = current_plan().device
    if device.platform == "cpu":
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read("/proc/meminfo"), re.M)
        return 1024.0 * int(found.group(1)) if found else float("inf")
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", float("inf")) - stats.get("bytes_in_use", 0.0)


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.M)
    name = found.group(1) if found else platform.processor() or platform.machine()
    return re.sub(r"\((R|TM)\)", "", name).strip()


def _read(path: str) -> str:
    """A file of Linux; empty elsewhere."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _git(*arguments: str) -> str | None:
    """What git says of the package's folder; None where it has nothing to say."""
    command = ["git", "-C", str(_PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
