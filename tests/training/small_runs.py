"What the tests of the loop and of checkpoints share: small data, a run of ten steps, its files, and processes that die at a chosen moment."
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import medgan.training.checkpoints as checkpoints_module
import medgan.training.run_folder as run_folder_module
from medgan.cdcgan import train_cdcgan
from medgan.data.images import ImageData
from medgan.training.checkpoints import checkpoints, load_checkpoint, same_state
from medgan.training.loop import EMA, Trainer, set_seed

CLASSES = ["a", "b", "c"]
CONFIG = dict(epochs=2, z_dim=8, width=4, batch_size=8)
OFTEN = dict(log_every=2, checkpoint_every=3, sample_every=4, progress="") # 10 steps; rows, checkpoints and samples at different ones

def toy_data(seed=0, n=40):
    "Random images in memory."
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    groups = [f"toy/{i}" for i in range(n)]
    table = pd.DataFrame(dict(id=[f"{i:03d}" for i in range(n)], dx=[CLASSES[c] for c in label], label=label, group=groups))
    return ImageData("toy", rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), None, table, CLASSES, f"toy-{seed}")

def train(out_dir, resume=False, data=None, **changes):
    "A run of cDCGAN: batch norm, spectral norm, two optimisers."
    return train_cdcgan(data or toy_data(), CONFIG | changes, str(out_dir), resume, **OFTEN)

def contents(folder):
    "Relative path -> bytes of all files."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}

def rows(out_dir):
    "The rows of stats.jsonl without the one column that is a time."
    lines = (Path(out_dir)/"stats.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_s"} for line in lines]

def assert_same_run(out_dir, other):
    "Weights, optimisers, configuration, statistics, samples and the list of files."
    ours, theirs = checkpoints(out_dir), checkpoints(other)
    assert [p.name for p in ours] == [p.name for p in theirs]
    for a, b in zip(ours, theirs): assert same_state(load_checkpoint(a), load_checkpoint(b)), a.name
    assert rows(out_dir) == rows(other)
    a, b = contents(out_dir), contents(other)
    assert a.keys() == b.keys()                                              # nothing unfinished is left
    assert [n for n in a if n.endswith(".jpg") and a[n] != b[n]] == []

# ---- a run with everything that a state can hold

class Counter:
    "State of a step that is no network, such as ADA's p."
    def __init__(self): self.p = 0.
    def state_dict(self): return dict(p=self.p)
    def load_state_dict(self, state): self.p = state["p"]

def toy_trainer(out_dir="", resume=False, bad_step=None, **options):
    "A network with batch norm and dropout, momentum, EMA and a state of its own; its step is `.own_step`."
    set_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 4), nn.BatchNorm1d(4), nn.Dropout(.5), nn.Linear(4, 1))
    opt, counter = torch.optim.AdamW(net.parameters(), 1e-3), Counter()
    trainer = Trainer(dict(net=net), dict(opt=opt), seed=3, out_dir=str(out_dir), config=dict(name="toy"), resume=resume, progress="",
                      ema=dict(net=EMA(net, halflife=20, rampup=.5)), state=dict(counter=counter), **dict(log_every=2) | options)
    def step(batch):
        x = batch["image"] + counter.p*torch.randn_like(batch["image"])
        loss = (net(x)[:, 0] - batch["label"]).square().mean()
        if trainer.step + 1 == bad_step: loss = loss*float("nan")
        trainer.update(opt, loss)
        counter.p += .01
        return dict(loss=loss, p=counter.p)
    trainer.own_step = step
    return trainer

def toy_run(out_dir, epochs, **options):
    "The same, trained; five steps an epoch."
    trainer = toy_trainer(out_dir, **options)
    trainer.fit(trainer.own_step, toy_data(), epochs, 8)
    return trainer

# ---- processes that die. They are forked from one that has imported torch but not used it

KILLED = -signal.SIGKILL

def die(): os.kill(os.getpid(), signal.SIGKILL)

class HalfFile:
    "Stands for a file in which the process dies half-way through a write."
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, data):
        self.file.write(data[:len(data)//2])
        self.file.flush()
        die()

class FullDisk:
    "Stands for a file on a disk that takes half of what is written."
    def __init__(self, path, mode): self.file = open(path, mode)
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, data):
        self.file.write(data[:len(data)//2])
        self.file.flush()
        raise OSError(28, "No space left on device")

def arm(moment, n, out_dir):
    "Make this process die at the n-th time (from 0) that it comes to a moment; n = None only counts them."
    seen = [0]
    def now():
        seen[0] += 1
        return seen[0] - 1 == n
    if moment == "update":                                                   # between D's step and G's, or between two steps
        update = Trainer.update
        Trainer.update = lambda *args: die() if now() else update(*args)
    if moment in ("SIGTERM", "SIGINT"):                                      # told to stop while D or G is trained
        if moment == "SIGINT": signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell's background process ignores it
        update = Trainer.update
        def told(*args):
            if now(): os.kill(os.getpid(), getattr(signal, moment))
            return update(*args)
        Trainer.update = told
    if moment in ("checkpoint", "row"):                                      # half of it is written
        mode, module = dict(checkpoint=("wb", checkpoints_module), row=("a", run_folder_module))[moment]
        module.open = lambda path, m="r", *a: HalfFile(open(path, m, *a)) if m == mode and now() else open(path, m, *a)
    if moment == "file":                                                     # any file of the run is made, emptied, renamed or removed
        inside = []
        def hook(event, args):
            if inside or event not in ("open", "os.rename", "os.remove", "os.mkdir") or not str(args[0]).startswith(str(out_dir)): return
            if event == "open" and (os.path.isdir(args[0]) or not (isinstance(args[1], str) and set(args[1]) & set("wa+x"))): return
            if now():
                inside.append(True)
                if event == "open" and "w" in args[1]: open(args[0], "wb").close() # dies after the old content has gone
                die()
        sys.addaudithook(hook)
    return seen

def child(out_dir, resume, moment, n):
    "What such a process does."
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seen = arm(moment, n, out_dir)
    train(out_dir, resume)
    if n is None and moment: (Path(out_dir).parent/"moments").write_text(str(seen[0]))
