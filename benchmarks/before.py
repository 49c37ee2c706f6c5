"""This server beside the same server at another commit, both up at once, asked in turns.

The machine's speed changes within minutes, so that only the ratio of two neighbouring trials says anything.

git worktree add ../before COMMIT; python -m benchmarks.overhead --before ../before
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.contenders import Way, our_ways
from benchmarks.load import Load
from benchmarks.report import at_most, print_table
from benchmarks.server import DUMMY_APP, our_server

CLIENTS = 8
GOAL_RATIO = 1.10


def compare(
    before: Path,
    cores: Collection[int],
    pictures: Sequence[bytes],
    bare: Sequence[bytes],
    *,
    rounds: int,
    seconds: float,
) -> None:
    """Prints how the time of a request on a core, and its p50, have changed.

    Args:
        before: a checkout of the other commit.
        cores: those that both servers share.
        pictures, bare: JPEGs of usual size, and of next to no pixels.
        seconds: of each trial.
    """
    with ExitStack() as running:
        there = [
            running.enter_context(our_server(cores=cores, command=DUMMY_APP, LOG_LEVEL="WARNING", **paths))
            for paths in ({"PYTHONPATH": os.pathsep.join([str(before / "src"), str(before)])}, {})
        ]
        pairs = list(zip(*([*our_ways(s, pictures), *our_ways(s, bare, bare=True)] for s in there), strict=True))
        ratios = [_ratios(pair, rounds, seconds) for pair in pairs]
    rows = [
        (
            "without pixels" if now.bare else "a JPEG of 100 KB",
            now.sent,
            f"{cpu:.3f}",
            f"{p50:.3f}",
            str(now.loads[CLIENTS].errors),
        )
        for (_, now), (cpu, p50) in zip(pairs, ratios, strict=True)
    ]
    print_table(
        f"This server against {before.name}, {CLIENTS} clients, median of {rounds} alternating rounds",
        ("picture", "sent as", "CPU each", "p50", "errors"),
        rows,
        notes=[at_most("CPU of a request, worst of these", max(cpu for cpu, _ in ratios), GOAL_RATIO, " x")],
    )


def _ratios(pair: Sequence[Way], rounds: int, seconds: float) -> tuple[float, float]:
    """Now by before, of the time on a core and of p50."""
    trials = []
    for turn in range(rounds):
        measured = {}
        # Who comes first changes, since the second finds a warmer machine.
        for index in (0, 1) if turn % 2 else (1, 0):
            way = pair[index]
            trial = Way(way.name, way.sent, way.server, way.requests, way.bare)
            trial.measure(CLIENTS, seconds)
            way.loads.setdefault(CLIENTS, Load()).add(trial.loads[CLIENTS])
            measured[index] = trial.cpu_ms(CLIENTS), trial.loads[CLIENTS].percentile(50)
        trials.append([now / then for then, now in zip(measured[0], measured[1], strict=True)])
    cpu, p50 = zip(*trials, strict=True)
    return median(cpu), median(p50)
