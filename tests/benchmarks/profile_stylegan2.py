"""Where the time of a training step of StyleGAN2-ADA goes, how far it is from what the machine can do, and what torch.compile changes.

python -m tests.benchmarks.profile_stylegan2 [--size 64] [--preset laptop] [--batch_size 16] [--threads 2] [--pipe bgc]
                                             [--precision no] [--compile] [--operators]

Sixteen steps, so that every lazy regulariser has its share, with augmentation at p = 0.5; on the GPU where there is one.
Floating-point operations are counted by torch, the machine's limit is what a large convolution reaches on it at the same
precision. With --compile the networks are compiled in all steps but those whose regulariser needs a second derivative, which
torch.compile does not have. --operators adds the ten most expensive operators.
"""
import argparse
import contextlib
import time
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from medgan.models.stylegan2 import preset
from medgan.models.stylegan2_augment import Augment
from medgan.models.stylegan2_train import (
    PATH_EVERY,
    R1_EVERY,
    LastTerms,
    StyleGAN2Config,
    build_stylegan2,
    lazy_adam,
    stylegan2_step,
)
from medgan.networks.losses import PathLength

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PHASES = {("G", 0): "generator", ("G", 1): "path length", ("D", 0): "discriminator", ("D", 1): "R1"}

def wait():
    if DEVICE.type == "cuda": torch.cuda.synchronize()

def limit(dtype, channels=128 if DEVICE.type == "cpu" else 512):
    "Floating-point operations a second of a 3 x 3 convolution of many channels at 64 px, the best of ten."
    given = dict(device=DEVICE, dtype=dtype)
    shapes = (8, channels, 64, 64), (channels, channels, 3, 3)
    x, weight = (torch.randn(*shape, **given).to(memory_format=torch.channels_last) for shape in shapes)
    times = []
    for _ in range(10):
        wait()
        started = time.perf_counter()
        torch.nn.functional.conv2d(x, weight, padding=1)
        wait()
        times.append(time.perf_counter() - started)
    return 2*9*channels**2*64**2*len(x)/min(times)

class AllTogether(contextlib.nullcontext):
    "In place of torch's tracker of modules, which does not go together with `no_grad`."
    parents = {"Global"}

class Run:
    "Sixteen steps at a time; what each phase of a step took, by `measure`, a function without arguments."
    def __init__(self, args):
        self.args = args
        config = StyleGAN2Config(**preset(args.preset, args.size, args.batch_size) | dict(size=args.size, classes=["a", "b"], mirror=True))
        torch.manual_seed(0)
        self.batch_size, self.step, self.phases, self.asked = config.batch_size, 0, defaultdict(float), []
        G, D = (net.to(DEVICE) for net in build_stylegan2(config))
        if args.compile:
            self.compile(G.synthesis, PATH_EVERY)
            self.compile(D, R1_EVERY)
        self.optimizers = dict(G=lazy_adam(G, config.lr, PATH_EVERY), D=lazy_adam(D, config.lr, R1_EVERY))
        self.modules = dict(G=G, D=D, augment=Augment(args.pipe, .5).to(DEVICE))
        self.train = stylegan2_step(self, config, None, PathLength(), LastTerms())
        x = torch.rand(self.batch_size, 3, args.size, args.size, device=DEVICE)*2 - 1
        self.batch = dict(image=x, label=torch.arange(self.batch_size, device=DEVICE) % 2)

    def everywhere(self, x): return x                                        # one process
    def gather(self, x): return x

    def compile(self, net, every):
        "The compiled network, but where a second derivative comes in this step."
        plain, fast = net.forward, torch.compile(net.forward)
        net.forward = lambda *given: (plain if self.step % every == 0 else fast)(*given)

    def update(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        name = next(k for k, o in self.optimizers.items() if o is optimizer)
        now = self.measure()
        self.phases[PHASES[name, self.asked.count(name)]] += now - self.last
        self.last = now
        self.asked.append(name)

    def sixteen(self, measure):
        "All phases of sixteen steps."
        self.measure, self.phases = measure, defaultdict(float)
        self.last = measure()
        for self.step in range(16):
            self.asked = []
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.args.precision == "bf16"): self.train(self.batch)
        return {phase: value/16 for phase, value in self.phases.items()}

def clock():
    wait()
    return time.perf_counter()

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("size", 64), ("batch_size", 16), ("threads", 2)): parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("preset", "laptop"), ("pipe", "bgc"), ("precision", "no")): parser.add_argument(f"--{name}", default=value)
    for name in ("compile", "operators"): parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Run(args)
    run.sixteen(clock)                                                       # warm up
    runs = [run.sixteen(clock) for _ in range(3)]
    seconds = min(runs, key=lambda r: sum(r.values()))
    if not args.compile:
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = AllTogether()
        with counter: flops = run.sixteen(counter.get_total_flops)
    peak, total = limit(torch.bfloat16 if args.precision == "bf16" else torch.float32), sum(seconds.values())
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{args.threads} threads"
    print(f"{args.preset}, {args.size} px, batch {run.batch_size}, {args.pipe}, precision {args.precision}, torch {torch.__version__}, "
          f"{device}; a convolution reaches {peak/1e9:,.0f} GFLOP/s")
    def work(done, s): return "" if args.compile else f"{done()/1e9:9.2f} GFLOP {done()/s/peak:6.0%} of the limit"
    for phase, s in seconds.items():
        print(f"{phase:14}{1000*s:9.1f} ms/step {s/total:6.0%}" + work(lambda: flops[phase], s))
    print(f"{'all':14}{1000*total:9.1f} ms/step {1000*total/run.batch_size:9.1f} s/kimg" + work(lambda: sum(flops.values()), total))
    if args.operators:
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA]*(DEVICE.type == "cuda")
        with profile(activities=activities) as taken: run.sixteen(clock)
        print(taken.key_averages().table(sort_by=f"self_{DEVICE.type}_time_total", row_limit=10, max_name_column_width=40))

if __name__ == "__main__": main()
