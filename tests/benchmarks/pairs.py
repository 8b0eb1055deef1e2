"""Several ways of doing one thing, timed in turns in one process: what the benchmarks share.

Each benchmark has a function `rows(quick)`, which gives what it measured as a list of `Row`; `python -m tests.benchmarks.bench_x` prints
them, and exits 1 where a goal is missed. Times are the process's CPU time with one thread, which another process on the machine
disturbs least; what is compared is the ratio within each turn, of which the median counts.
"""
import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

torch.set_num_threads(1)

@dataclass
class Row:
    "What one comparison gave: `ratio` says how many times as fast (or what share of the memory) medgan is."
    what: str              # what was done
    against: str           # beside what
    ours: float            # median, in `unit`
    theirs: float
    unit: str              # ms, MiB, ...
    ratio: float           # median over the turns
    low: float             # quartiles of the ratio
    high: float
    goal: float            # the ratio is to be at least this, or at most, where `at_most`; nan = none
    at_most: bool = False

    @property
    def is_kept(self):
        if self.goal != self.goal: return True
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

def in_turns(ways: dict[str, Callable[[], object]], # what is timed, by name
             turns: int,                            # times each
             warm: int = 1,                         # turns before, not counted
             clock: Callable[[], float] = time.process_time,
            ) -> dict[str, list[float]]:            # seconds
    "Each way once a turn, in alternating order."
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm, turns):
        for name in list(ways)[::1 if turn % 2 else -1]:
            started = clock()
            ways[name]()
            if turn >= 0: times[name].append(clock() - started)
    return times

def compared(what: str,                   # as of `Row`
             times: dict[str, list[float]], # of `in_turns`
             ours: str, theirs: str,      # names in it
             goal: float = float("nan"),
            ) -> Row:
    "How many times as fast ours is."
    ratios = [b/a for a, b in zip(times[ours], times[theirs])]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios*3
    medians = [1000*statistics.median(times[name]) for name in (ours, theirs)]
    return Row(what, theirs, *medians, "ms", statistics.median(ratios), low, high, goal)

def in_both_precisions(what: str,                             # as of `Row`
                       ways: dict[str, Callable[[], dict]], # steps that give losses: "medgan" and "plain", each also ", bf16"
                       turns: int, warm: int,               # as of `in_turns`
                       tolerance: float,                    # share by which bfloat16 may change a first step's losses
                       goal: float, goal_bf16: float,       # beside the plain form in float32
                      ) -> list[Row]:
    "Our steps beside the plain ones; `AssertionError` unless all first steps give the same losses."
    first = {name: way() for name, way in ways.items()}
    for name, losses in first.items():
        allowed = tolerance if name.endswith("bf16") else 1e-4
        for loss, value in first["plain"].items():
            one, other = losses[loss].item(), value.item()
            assert abs(one - other) <= allowed*abs(other), f"{name}, {loss}: {one} is not {other}"
    times = in_turns(ways, turns, warm)
    return [compared(what, times, "medgan", "plain", goal), compared(f"{what}, bf16", times, "medgan, bf16", "plain", goal_bf16),
            compared(f"{what}, bf16", times, "medgan, bf16", "plain, bf16")]

def table(rows: list[Row]) -> str: # Markdown
    "One line a comparison."
    lines = ["| what | beside | ours | theirs | ratio (quartiles) | goal | |", "|---|---|--:|--:|--:|--:|---|"]
    for r in rows:
        bound = "" if r.goal != r.goal else f"{'at most' if r.at_most else 'at least'} {r.goal:g}"
        kept = "" if r.goal != r.goal else "kept" if r.is_kept else "**missed**"
        lines.append(f"| {r.what} | {r.against} | {r.ours:.4g} {r.unit} | {r.theirs:.4g} {r.unit} | "
                     f"{r.ratio:.2f} ({r.low:.2f}-{r.high:.2f}) | {bound} | {kept} |")
    return "\n".join(lines)

def machine() -> str:
    "On what it was measured."
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return (f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} thread, {torch.backends.cpu.get_cpu_capability()}, "
            f"Python {platform.python_version()}, torch {torch.__version__}")

def main(rows: Callable[[bool], list[Row]], doc: str):
    "The command line of a benchmark."
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    measured = rows(parser.parse_args().quick)
    print(machine(), table(measured), sep="\n\n")
    sys.exit(not all(r.is_kept for r in measured))
