"""Runs one benchmark after the other, and says in the end which goals are met.

python -m benchmarks
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.report import MET, MISSED, machine

BENCHMARKS = (
    "overhead",
    "prompts",
    "second_look",
    "batching",
    "masks",
    "features",
    "embeddings",
    "responsive",
    "startup",
    "growth",
    "cpu",
    "gpu",
)


def main() -> None:
    goals: list[tuple[str, str]] = []
    minutes: dict[str, float] = {}
    for name in BENCHMARKS:
        started = time.perf_counter()
        goals += [(name, line) for line in lines_of(name) if line.startswith((MET, MISSED))]
        minutes[name] = (time.perf_counter() - started) / 60
    each = ", ".join(f"{name} {taken:.1f}" for name, taken in minutes.items())
    print(f"\nAll of it took {sum(minutes.values()):.1f} minutes: {each}. {machine()}\n")
    for name, goal in goals:
        print(f"{name:<12} {goal}")


def lines_of(name: str) -> list[str]:
    """Runs a benchmark in a process of its own, shows what it prints, and gives its lines.

    Raises:
        subprocess.CalledProcessError: it failed; it said why.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.strip())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return lines


if __name__ == "__main__":
    main()
