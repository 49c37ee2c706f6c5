"""How benchmarks measure and print."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

MET, MISSED = "goal met:   ", "goal MISSED:"
"""How the lines of goals begin."""


def median_ms(calls: Iterable[Callable[[], object]]) -> float:
    """Calls each one once; the median of their times in ms."""
    return median(elapsed_ms(call) for call in calls)


def elapsed_ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def percentile(values: Iterable[float], percent: float) -> float:
    """The least value that is not below `percent` of them; not a number if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))] if ordered else float("nan")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Prints a table with numbers to the right, and below it notes and the machine that it was measured on."""
    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(width=110)
    console.print(f"\n{title}", highlight=False)
    console.print(table)
    for note in (*notes, machine()):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)


def at_least(what: str, reached: float, goal: float, unit: str = "") -> str:
    """A line that says whether a goal is met, beside what was reached."""
    return _verdict(reached >= goal, what, reached, f"at least {goal:g}", unit)


def at_most(what: str, reached: float, goal: float, unit: str = "") -> str:
    """A line that says whether a goal is met, beside what was reached."""
    return _verdict(reached <= goal, what, reached, f"at most {goal:g}", unit)


def _verdict(met: bool, what: str, reached: float, goal: str, unit: str) -> str:
    return f"{MET if met else MISSED} {what}: {reached:.3g}{unit} (goal: {goal}{unit})"


def machine() -> str:
    """Processor, cores and Python of this machine."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
