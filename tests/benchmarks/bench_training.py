"""What `Trainer.fit` costs beyond the steps themselves, in per cent.

python -m tests.benchmarks.bench_training [--quick]

cDCGAN at 32 px, batches of 32, epochs of 10 steps: small networks and short epochs, so that what surrounds a step weighs as much as
it ever does (HAM10000 has a hundred steps to one checkpoint). A bare loop reads a batch, takes the step and, with EMA, averages G's
weights by medgan's `EMA`.

- inside one run: `fit` is timed whole, and what a bare loop does as well (reading, step, average) apart in the very same run. This
  decides: what one run differs from another, several per cent, is in both.
- fit: nothing is kept; seeds, statistics and the check of every term are there.
- all kept: also a row of statistics on the disk, a checkpoint (networks, average, optimisers) and a grid of 64 images by the
  average, each once in 10 steps. Drawing the grid counts as overhead; the average does not, a bare loop would have it, too.
- in turns: an epoch by `fit`, an epoch by a bare loop of its own. The same question with more noise, so without a goal.

Times are CPU time. One line tells of all kept by the clock on the wall, with the waiting for the disk, which depends on the disk and on
whatever else runs: it has no goal.
"""
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from medgan.cdcgan import CDCGANConfig, build_cdcgan, cdcgan_step
from medgan.data.images import ImageData
from medgan.training.loop import EMA, Trainer, epoch_rows, set_seed
from tests.benchmarks.pairs import Row, compared, in_turns, main

STEPS, BATCH, SIZE = 10, 32, 32
CLASSES = [f"c{i}" for i in range(7)]

def toy_data():
    "An epoch of noise."
    n = STEPS*BATCH
    label = np.arange(n) % len(CLASSES)
    images = np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)
    table = pd.DataFrame(dict(id=[str(i) for i in range(n)], dx=[CLASSES[c] for c in label], label=label,
                              group=[f"toy/{i}" for i in range(n)]))
    return ImageData("bench", images, None, table, CLASSES, "bench")

def build(out_dir="", ema=False):
    "A trainer and its step: networks and optimisers of its own, the same every time."
    set_seed(0)
    config = CDCGANConfig(size=SIZE, classes=CLASSES, width=16)
    G, D = build_cdcgan(config)
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), 2e-4, betas=(.5, .999)) for net in (G, D))
    averages = dict(G=EMA(G, 1000)) if ema else {}
    z, labels = torch.randn(64, config.z_dim), torch.arange(64) % len(CLASSES)
    trainer = Trainer(dict(G=G, D=D), dict(G=opt_G, D=opt_D), out_dir=out_dir, ema=averages, progress="",
                      sample=lambda: averages["G"].average(z, labels))
    return trainer, cdcgan_step(G, D, opt_G, opt_D, trainer.update)

def fit_epoch(trainer, step, data): trainer.fit(step, data, trainer.step/STEPS + 1, BATCH)

def bare_epoch(trainer, step, data):
    for rows in epoch_rows(len(data), BATCH, 0, 0):
        step(data.read(rows, trainer.device))
        for average in trainer.ema.values(): average.update(BATCH, 1000)

class Stopwatch:
    "Adds up what the calls of some functions take."
    def __init__(self, clock): self.clock, self.seconds = clock, 0.
    def on(self, function):
        def timed(*args):
            started = self.clock()
            result = function(*args)
            self.seconds += self.clock() - started
            return result
        return timed

def inside(turns, out_dir="", ema=False, clock=time.process_time):
    "Seconds of whole epochs by `fit`, and of what a bare loop does as well."
    trainer, step = build(out_dir, ema)
    data, watch = toy_data(), Stopwatch(clock)
    data.read, step = watch.on(data.read), watch.on(step)
    for average in trainer.ema.values(): average.update = watch.on(average.update)
    times = dict(whole=[], bare=[])
    for turn in range(-1, turns):
        started, watch.seconds = clock(), 0.
        fit_epoch(trainer, step, data)
        if turn >= 0:
            times["whole"].append(clock() - started)
            times["bare"].append(watch.seconds)
    return times

def overhead(what, against, times, goal=float("nan")):
    "How much more time ours takes, per cent."
    ours, theirs = times
    row = compared(what, times, ours, theirs)
    ratio, high, low = (100*(1/r - 1) for r in (row.ratio, row.low, row.high))
    return Row(f"{what}: % more time", against, row.ours/STEPS, row.theirs/STEPS, "ms/step", ratio, low, high, goal, at_most=True)

def by_both(turns):
    "Epochs by `fit` and by a bare loop, each with networks of its own."
    data = toy_data()
    return in_turns({epoch.__name__: partial(epoch, *build(), data) for epoch in (fit_epoch, bare_epoch)}, turns)

def rows(quick):
    turns = 9 if quick else 31
    with tempfile.TemporaryDirectory() as folder:
        def all_kept(clock): return inside(turns, str(Path(folder)/clock.__name__), True, clock)
        return [overhead("fit", "inside one run", inside(turns), 2.),
                overhead("fit, with EMA", "inside one run", inside(turns, ema=True), 2.),
                overhead("fit, all kept", "inside one run", all_kept(time.process_time), 5.),
                overhead("fit, all kept, on the wall", "inside one run", all_kept(time.perf_counter)),
                overhead("fit", "a bare loop, in turns", by_both(2*turns))]

if __name__ == "__main__": main(rows, __doc__)
