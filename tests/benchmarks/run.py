"""
What this package costs, measured beside what it replaces: `python tests/benchmarks/run.py [--quick] [ROOM ...]`.

Ratios, since they hold from machine to machine better than times do. Exit status 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
from importlib import import_module

from measuring import Line

ROOMS = {
    "overhead": "A decorated call that succeeds",
    "threads": "The same on many threads",
    "calling": "A call and a batch over HTTP",
    "importing": "Importing",
    "memory": "Memory",
    "recovery": "At an expiry",
    "pacing": "The shared pace",
    "losing": "What a batch loses, and what its orders come to",
    "maintenance": "A night of maintenance",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds, for a look while working")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; all of them by default")
    chosen = parser.parse_args()
    unknown = sorted({*chosen.rooms} - {*ROOMS})
    if unknown:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(ROOMS)}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{os.cpu_count()} cores, {python}, {platform.platform()}")
    missed = sum(show(room, quick=chosen.quick) for room in chosen.rooms or ROOMS)
    print(f"\n{missed} bounds missed" if missed else "\nevery bound met")
    return 1 if missed else 0


def show(room: str, *, quick: bool) -> int:
    """Measure in a process of its own, so that what one room loads or patches does not weigh on another."""
    print(f"\n{ROOMS[room]}", flush=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(measure, (room, quick))
    for line in found:
        mark = ("met" if line.met else "MISSED") if line.bound else ""
        value = f"{line.value:,.2f}" if line.unit else f"{line.value:,.0f}"
        print(f"  {line.what:<80} {value:>9} {line.unit:<10} {line.bound:<7} {mark}".rstrip(), flush=True)
    return sum(not line.met for line in found)


def measure(room: str, quick: bool) -> list[Line]:
    return list(import_module(room).lines(quick=quick))


if __name__ == "__main__":
    sys.exit(main())
