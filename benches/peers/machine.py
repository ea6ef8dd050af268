"""The machine that is measured on: whether it is calm, what it allows, what a record says of it."""

import datetime
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import time

from peers import ROOT

CALM_SHARE = 0.05  # of all cores, in use by anybody
CALM_S_MAX = 60


def raise_file_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit(f"RLIMIT_NOFILE is {hard}, {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def wait_for_calm() -> None:
    """Returns when the machine was idle for a quarter of a second, or the time is up."""
    deadline = time.monotonic() + CALM_S_MAX
    while time.monotonic() < deadline:
        used = used_s()
        time.sleep(0.25)
        if used_s() - used < CALM_SHARE * 0.25 * os.cpu_count():
            return


def used_s() -> float:
    """CPU seconds that anybody has used, and those that the hypervisor took (proc(5), /proc/stat)."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def about() -> dict:
    return {
        "date": datetime.date.today().isoformat(),
        "kernel": platform.release(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "commit": commit(),
    }


def cpu() -> str:
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return model[1] if model else platform.machine()


def commit() -> str:
    """What is checked out, and whether something that is measured, or measures, was changed since."""
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()  # noqa: E731
    changed = git("status", "--porcelain", "--", "Cargo.toml", "Cargo.lock", "src", "loadgen", "benches/peers", "benches/floor", "benches/heartbeats")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
