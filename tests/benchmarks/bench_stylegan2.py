"""How fast a training step of StyleGAN2 is, beside the straightforward form, and how much memory each takes.

python tests/benchmarks/bench_stylegan2.py [--size 64] [--base 2048] [--most 64] [--batch_size 16] [--threads 2] [--repeats 3]

The straightforward form has weights of each image's own in a grouped convolution, as the paper writes it, resamples with all
sixteen taps in one dense convolution, and keeps channels first. Sixteen steps are timed, so that every lazy regulariser has its
share; each form runs in a process of its own, in turn. Prints a table; exits 1 where ours is less than 1.3 times as fast, or
takes more memory.
"""
import argparse
import resource
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from medgan.models import stylegan2
from medgan.models.stylegan2 import preset
from medgan.models.stylegan2_augment import Augment
from medgan.models.stylegan2_train import LastTerms, StyleGAN2Config, build_stylegan2, lazy_adam, stylegan2_step
from medgan.networks.losses import PathLength

TAPS = torch.outer(torch.tensor([1., 3., 3., 1.]), torch.tensor([1., 3., 3., 1.]))/64

def dense_filter(x, around, stride=1):
    return F.conv2d(x, TAPS.expand(x.shape[1], 1, 4, 4), stride=stride, padding=around, groups=x.shape[1])

def dense_upsample(x):
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, h, 2, w, 2)
    spread[:, :, :, 0, :, 0] = x
    return 4*dense_filter(F.pad(spread.reshape(b, c, 2*h, 2*w), (0, -1, 0, -1)), 2)

def grouped_modulation(x, weight, style, demodulate=True, up=False, gain=1.):
    b, n, h, w = x.shape
    own = weight[None]*style[:, None, :, None, None]
    if demodulate: own = own*(own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()*gain
    m, k = weight.shape[0], weight.shape[-1]
    if not up:
        return F.conv2d(x.reshape(1, b*n, h, w), own.reshape(b*m, n, k, k), padding=k//2, groups=b).view(b, m, h, w)
    y = F.conv_transpose2d(x.reshape(1, b*n, h, w), own.transpose(1, 2).reshape(b*n, m, k, k), stride=2, groups=b)
    return 4*dense_filter(y.view(b, m, *y.shape[2:]), 1)

def measure(args):
    "Seconds a step and peak memory in MB of one form, printed for the parent."
    torch.set_num_threads(args.threads)
    usual = preset("laptop", args.size, args.batch_size)
    config = StyleGAN2Config(**usual | dict(size=args.size, classes=["a", "b"], base=args.base, most=args.most))
    torch.manual_seed(0)
    G, D = build_stylegan2(config)
    if args.form == "straightforward":
        G, D = (net.to(memory_format=torch.contiguous_format) for net in (G, D))
        vars(stylegan2).update(_filtered=dense_filter, upsample=dense_upsample, downsample=lambda x: dense_filter(x, 1, 2),
                               modulated_convolution=grouped_modulation)
    def update(optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    alone = dict(everywhere=lambda x: x, gather=lambda x: x)                 # one process
    run = SimpleNamespace(modules=dict(G=G, D=D, augment=Augment("none")), update=update, step=0, **alone,
                          optimizers=dict(G=lazy_adam(G, .0025, 4), D=lazy_adam(D, .0025, 16)))
    step = stylegan2_step(run, config, None, PathLength(), LastTerms())
    batch = dict(image=torch.rand(args.batch_size, 3, args.size, args.size)*2 - 1, label=torch.arange(args.batch_size) % 2)
    step(batch)
    started = time.perf_counter()
    for run.step in range(16): step(batch)
    print((time.perf_counter() - started)/16, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in dict(size=64, base=2048, most=64, batch_size=16, threads=2, repeats=3).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--form", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.form: return measure(args)
    results = {form: [] for form in ("medgan", "straightforward")}
    for _ in range(args.repeats):
        for form, runs in results.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--form", form]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs.append([float(v) for v in out.split()])
    seconds, memory = ({form: statistics.median(r[i] for r in runs) for form, runs in results.items()} for i in (0, 1))
    print(f"{args.size} px, base {args.base}, at most {args.most} channels, batch {args.batch_size}, {args.threads} threads; "
          f"median of {args.repeats}")
    for form in results:
        print(f"{form:16} {seconds[form]:7.3f} s/step {1000*seconds[form]/args.batch_size:8.1f} s/kimg {memory[form]:8.0f} MB")
    faster = seconds["straightforward"]/seconds["medgan"]
    print(f"{faster:.2f} times as fast, {memory['medgan']/memory['straightforward']:.2f} of the memory")
    sys.exit(faster < 1.3 or memory["medgan"] > memory["straightforward"])

if __name__ == "__main__": main()
