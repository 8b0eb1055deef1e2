"""What `Trainer.fit` costs beyond the step itself: cDCGAN steps by `fit` against the same steps in a bare loop, in turns.

python tests/benchmarks/bench_training.py [--repeats 31] [--steps 10] [--size 32] [--width 16] [--batch_size 32]

Prints a table; exits 1 where the median overhead is above the limit. Run it on a machine that does nothing else.
"""
import argparse
import os
import statistics
import sys
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")     # before torch: steadier times on machines that are not idle

import numpy as np
import pandas as pd
import torch

from medgan.cdcgan import CDCGANConfig, build_cdcgan, cdcgan_step
from medgan.data.images import ImageData
from medgan.training.loop import Trainer, epoch_rows, set_seed

LIMIT = 5.      # per cent

def build(args, out_dir=""):
    "Data, networks, a trainer and its step: the same every time."
    set_seed(0)
    classes = [f"c{i}" for i in range(7)]
    n = args.steps*args.batch_size
    label = np.arange(n) % 7
    images = np.random.default_rng(0).integers(0, 256, (n, args.size, args.size, 3), dtype=np.uint8)
    groups = [f"toy/{i}" for i in range(n)]
    table = pd.DataFrame(dict(id=[str(i) for i in range(n)], dx=[classes[c] for c in label], label=label, group=groups))
    data = ImageData("bench", images, None, table, classes, "bench")
    G, D = build_cdcgan(CDCGANConfig(size=args.size, classes=classes, width=args.width))
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), 2e-4, betas=(.5, .999)) for net in (G, D))
    trainer = Trainer(dict(G=G, D=D), dict(G=opt_G, D=opt_D), out_dir=out_dir, progress="")
    return data, trainer, cdcgan_step(G, D, opt_G, opt_D, trainer.update)

def device_done():
    if torch.cuda.is_available(): torch.cuda.synchronize()

def bare(args):
    "The steps and nothing else."
    data, trainer, step = build(args)
    rows = epoch_rows(len(data), args.batch_size, 0, 0)
    device_done()
    started = time.perf_counter()
    for row in rows: step(data.read(row, trainer.device))
    device_done()
    return time.perf_counter() - started

def fit(args, keep):
    "One epoch of `fit`; with `keep` it also writes statistics, a checkpoint and a sample grid."
    with tempfile.TemporaryDirectory() as folder:
        data, trainer, step = build(args, folder if keep else "")
        device_done()
        started = time.perf_counter()
        trainer.fit(step, data, 1, args.batch_size)
        device_done()
        return time.perf_counter() - started

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in dict(repeats=31, steps=10, size=32, width=16, batch_size=32).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    ways = {"bare loop": lambda: bare(args), "Trainer.fit": lambda: fit(args, False), "Trainer.fit, all kept": lambda: fit(args, True)}
    times = {name: [] for name in ways}
    for name in ways: ways[name]()                                                     # warm up
    for i in range(args.repeats):
        for name in (list(ways), list(ways)[::-1])[i % 2]: times[name].append(ways[name]())
    print(f"{args.size} px, width {args.width}, batch {args.batch_size}, {args.steps} steps, median of {args.repeats} in turns, "
          f"{torch.get_num_threads()} threads, {'GPU' if torch.cuda.is_available() else 'CPU'}\n")
    print(f"{'':24}{'ms/step':>10}{'images/s':>10}{'overhead':>10}")
    overhead = {}
    for name, seconds in times.items():
        overhead[name] = 100*(statistics.median(a/b for a, b in zip(seconds, times["bare loop"])) - 1)
        median = statistics.median(seconds)
        print(f"{name:24}{1000*median/args.steps:10.1f}{args.steps*args.batch_size/median:10.0f}{overhead[name]:9.1f}%")
    bad = overhead["Trainer.fit"] > LIMIT
    print(f"\nlimit for Trainer.fit: {LIMIT:g}% {'- TOO SLOW' if bad else '- kept'}")
    return int(bad)

if __name__ == "__main__": sys.exit(main())
