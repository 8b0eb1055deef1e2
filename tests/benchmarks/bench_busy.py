"""A training, and tests, on a machine that something else uses too: how much longer they take than alone.

python -m tests.benchmarks.bench_busy [--quick]

Beside as many processes that do nothing but count as the machine has cores: a fair share is half of the machine, so that twice as long
is what can be hoped for. Trainings in three settings: as torch sets its threads up (those that wait try again up to 300,000 times), with
GOMP_SPINCOUNT=1000 (they fall asleep sooner), and with OMP_NUM_THREADS=1 (there is nobody to wait for); and tests as pytest runs them
here, in two workers of one thread each. A second line says what a setting costs where nothing else runs. Seconds on the wall, each in a
process of its own; everything else on the machine should rest meanwhile.
"""
import os
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.benchmarks.pairs import compared, main

TRAIN = """
import time
from medgan.{module} import {train}
from medgan.data.images import load_data
data = load_data("phantom", size=32, n=320)
def begin(epochs): {train}(data, epochs=epochs, batch_size=16, progress="")
begin(.1)
started = time.perf_counter()
begin({epochs})
print(time.perf_counter() - started)
"""
TRAININGS = {"cDCGAN": dict(module="cdcgan", train="train_cdcgan", epochs=3),
             "StyleGAN2-ADA": dict(module="models.stylegan2_train", train="train_stylegan2", epochs=.5)}
SETTINGS = {"torch's own threads": {}, "GOMP_SPINCOUNT=1000": dict(GOMP_SPINCOUNT="1000"), "OMP_NUM_THREADS=1": dict(OMP_NUM_THREADS="1")}
TESTS = [sys.executable, "-m", "pytest", "-q", "tests/core"]

def seconds(command, setting=None):
    "What a process says of its time, or what it took, where it says nothing."
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    started = time.perf_counter()
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | (setting or {})).stdout
    return float(out) if command[1] == "-c" else time.perf_counter() - started

@contextmanager
def busy():
    "Every core is in use by another process."
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try: yield
    finally:
        for other in others:
            other.kill()
            other.wait()

def in_company(command, setting=None):
    with busy(): return seconds(command, setting)

def beside(what, alone, company, goal=2.2):
    "How many times as long it takes beside others."
    row = compared(what, {"alone": alone, "a busy process a core": company}, "alone", "a busy process a core", goal)
    row.at_most = True
    return row

def rows(quick):
    turns = 2 if quick else 5
    found = []
    for training, how in TRAININGS.items():
        command = [sys.executable, "-c", TRAIN.format(**how)]
        alone, company = {name: [] for name in SETTINGS}, {name: [] for name in SETTINGS}
        for _ in range(turns):
            for name, setting in SETTINGS.items():
                alone[name].append(seconds(command, setting))
                company[name].append(in_company(command, setting))
        found += [beside(f"{training}, {name}: times as long", alone[name], company[name]) for name in SETTINGS]
        own, *others = SETTINGS
        found += [compared(f"{training} alone, {name}", alone, name, own) for name in others]
    return found + [beside("tests/core, two workers: times as long", *zip(*((seconds(TESTS), in_company(TESTS)) for _ in range(turns))))]

if __name__ == "__main__": main(rows, __doc__)
