"""A training, and tests, on a machine that something else uses too: how much longer they take than alone.

python -m tests.benchmarks.bench_busy [--quick]

Beside as many processes that do nothing but count as the machine has cores: a fair share is half of the machine, so that twice as long
is what can be hoped for. Trainings with as many threads as torch takes by itself, once as medgan sets them up (threads that wait sleep),
once as torch does (they try again, up to 300,000 times). Seconds on the wall, each in a process of its own, in turns; everything else on
the machine should rest meanwhile.
"""
import os
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.benchmarks.pairs import compared, main

TRAIN = """
import time
import numpy, torch
from medgan.{module} import {train}
from medgan.data.images import load_data
torch.set_num_threads({threads})
data = load_data("phantom", size=32, n=320)
begin = lambda epochs: {train}(data, epochs=epochs, batch_size=16, progress="")
begin(.1)
started = time.perf_counter()
begin({epochs})
print(time.perf_counter() - started)
"""
TRAININGS = {"cDCGAN": dict(module="cdcgan", train="train_cdcgan", epochs=4),
             "StyleGAN2-ADA": dict(module="models.stylegan2_train", train="train_stylegan2", epochs=1)}
TESTS = [sys.executable, "-m", "pytest", "-q", "tests/networks"]

def seconds(command, spin=False):
    "What a process says of its time, or what it took, where it says nothing."
    environment = os.environ | (dict(GOMP_SPINCOUNT="300000") if spin else {})
    environment.pop("OMP_NUM_THREADS", None)
    started = time.perf_counter()
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    try: return float(out)
    except ValueError: return time.perf_counter() - started

@contextmanager
def busy():
    "Every core is in use by another process."
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try: yield
    finally:
        for other in others:
            other.kill()
            other.wait()

def beside(what, command, turns, goal, spin=False):
    "How many times as long it takes beside others."
    def in_company():
        with busy(): return seconds(command, spin)
    pairs = [(in_company(), seconds(command, spin)) for _ in range(turns)]
    times = {"beside others": [b for b, _ in pairs], "alone": [a for _, a in pairs]}
    row = compared(what, times, "alone", "beside others", goal)
    row.against, row.at_most = "a busy process a core", True
    return row

def rows(quick):
    turns = 1 if quick else 3
    found = []
    for name, how in TRAININGS.items():
        command = [sys.executable, "-c", TRAIN.format(**how, threads=os.cpu_count())]
        found.append(beside(f"{name}, threads that sleep: times as long", command, turns, 2.2))
        found.append(beside(f"{name}, threads that spin: times as long", command, turns, float("nan"), True))
        pairs = [(seconds(command), seconds(command, True)) for _ in range(turns)]
        times = dict(zip(("sleep", "spin"), map(list, zip(*pairs))))
        found.append(compared(f"{name} alone, threads that sleep", times, "sleep", "spin", .95))
        found[-1].against = "threads that spin"
    return found + [beside("tests/networks, two workers: times as long", TESTS, turns, 2.2)]

if __name__ == "__main__": main(rows, __doc__)
