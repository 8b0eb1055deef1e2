"""A training step of StyleGAN2-ADA beside the form in which it is published, in turns: time and memory.

python -m tests.benchmarks.bench_stylegan2 [--quick]

The published form, written here anew from the papers and from what NVIDIA's PyTorch release does while it trains without its own
GPU kernels: the style scales the input, the convolution follows, the output is scaled, noise is added, then bias, leaky ReLU and gain,
each by itself; whatever resamples pads its tensor, puts zeros between the pixels, filters each channel with all taps and throws away
what is not kept; channels come first; the pipe resamples all images with a margin that the farthest of them needs. Both forms have the
same weights and are checked to give the same images, logits and gradients before they are timed.

A step here is what belongs to one batch on average: path length comes every fourth step, R1 every sixteenth. Memory is what a step adds
to the process's peak, each form in a process of its own.
"""
import argparse
import re
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F

from medgan.models import stylegan2, stylegan2_augment
from medgan.models.stylegan2 import preset
from medgan.models.stylegan2_augment import Augment
from medgan.models.stylegan2_train import (
    PATH_EVERY,
    R1_EVERY,
    LastTerms,
    StyleGAN2Config,
    build_stylegan2,
    lazy_adam,
    path_phase,
    r1_phase,
    stylegan2_step,
)
from medgan.networks.losses import PathLength, path_lengths
from tests.benchmarks.pairs import Row, compared, in_turns, main

# the published form

def pad_filter(x, taps, up=1, down=1, around=(0, 0), gain=1.):
    "Zeros between the pixels, zeros around (before, after), the taps, and every so-manieth pixel."
    b, c, h, w = x.shape
    x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h*up, w*up)
    x = F.pad(x, (*around, *around))
    taps = (taps*gain**(taps.ndim/2)).to(x)
    if taps.ndim == 2: x = F.conv2d(x, taps.expand(c, 1, *taps.shape), groups=c)
    else:
        x = F.conv2d(x, taps.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
        x = F.conv2d(x, taps.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)
    return x[:, :, ::down, ::down]

def bias_act(x, bias, gain, clamp):
    x = F.leaky_relu(x + bias[:, None, None].to(x.dtype), .2)*gain
    return x.clamp(-clamp, clamp) if clamp else x

def styled_conv(self, x, w, noise):
    style = self.affine(w)
    own = self.weight[None]*style[:, None, :, None, None]
    factor = (own.square().sum((2, 3, 4)) + 1e-8).rsqrt()
    x = x*style[:, :, None, None]
    if self.up: x = pad_filter(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), stylegan2.SIXTEEN_TAPS, around=(1, 1), gain=4)
    else: x = F.conv2d(x, self.weight, padding=1)
    grain = {"random": lambda: torch.randn_like(x[:, :1]), "const": lambda: self.noise_const, "none": lambda: torch.zeros(())}[noise]()
    x = torch.addcmul(grain*self.noise_strength, x, factor[:, :, None, None])
    return bias_act(x, self.bias, 2**.5, self.clamp)

def to_image(self, x, w):
    x = F.conv2d(x*(self.affine(w)*self.gain)[:, :, None, None], self.weight) + self.bias[:, None, None]
    return (x.clamp(-self.clamp, self.clamp) if self.clamp else x).float()

def conv(self, x, gain=1.):
    weight = self.weight*self.gain
    if not self.down: x = F.conv2d(x, weight, padding=weight.shape[-1]//2)
    elif weight.shape[-1] == 1: x = F.conv2d(pad_filter(x, stylegan2.SIXTEEN_TAPS, down=2, around=(1, 1)), weight)
    else: x = F.conv2d(pad_filter(x, stylegan2.SIXTEEN_TAPS, around=(2, 2)), weight, stride=2)
    return bias_act(x, self.bias, gain*2**.5, self.clamp*gain) if self.activate else x*gain

def block(self, x):
    if self.first: x = self.fromrgb(x)
    return self.skip(x, .5**.5) + self.conv1(self.conv0(x), .5**.5)

def padded_resample(x, matrix):
    "Mirrored surroundings as wide as the farthest corner of all images needs, then enlarged, read and reduced."
    n = x.shape[2]
    corners = torch.tensor([[a, b, 1.] for a in (-1, 1) for b in (-1, 1)])
    reach = (matrix[:, :2] @ corners.T).abs().max().item()
    margin = min(max(int((reach - 1)*n/2 + .999), 0) + 6, n - 1)
    big = pad_filter(F.pad(x, (margin,)*4, mode="reflect"), stylegan2_augment.SYM6.flip(0), up=2, around=(6, 5), gain=4)
    place = (torch.arange(-5, 2*n + 5, dtype=x.dtype) + 1)/n - 1
    down, right = torch.meshgrid(place, place, indexing="ij")
    there = torch.stack([right, down, torch.ones_like(down)], -1) @ matrix[:, None, :2].transpose(-1, -2)
    pixel = (there + 1)*n - 1 + 2*margin
    read = stylegan2_augment._Read.apply(big, 2*pixel/(big.shape[2] - 1) - 1)
    return pad_filter(read, stylegan2_augment.SYM6, down=2)

PUBLISHED = [(stylegan2.StyledConv, "forward", styled_conv), (stylegan2.ToImage, "forward", to_image), (stylegan2.Conv, "forward", conv),
             (stylegan2.DiscriminatorBlock, "forward", block),
             (stylegan2, "upsample", lambda x: pad_filter(x, stylegan2.SIXTEEN_TAPS, up=2, around=(2, 1), gain=4)),
             (stylegan2_augment, "resample", padded_resample),
             (stylegan2_augment, "_where_chosen", lambda x, chosen, change, *each: change(x, *each))]

@contextmanager
def as_published():
    "The published form in place of ours."
    ours = [getattr(place, name) for place, name, _ in PUBLISHED]
    for place, name, form in PUBLISHED: setattr(place, name, form)
    try: yield
    finally:
        for (place, name, _), form in zip(PUBLISHED, ours): setattr(place, name, form)

# a training

class Training:
    "Networks of one form, and what a step is."
    def __init__(self, published=False, size=64, base=2048, most=64, batch_size=16, pipe="none", precision="no"):
        usual = preset("laptop", size, batch_size)
        self.config = StyleGAN2Config(**usual | dict(size=size, classes=["a", "b"], base=base, most=most))
        self.published, self.precision, self.step = published, precision, 0
        torch.manual_seed(0)
        G, D = build_stylegan2(self.config)
        if published: G, D = (net.to(memory_format=torch.contiguous_format) for net in (G, D))
        self.modules = dict(G=G, D=D, augment=Augment(pipe, .5))
        self.optimizers = dict(G=lazy_adam(G, .0025, PATH_EVERY), D=lazy_adam(D, .0025, R1_EVERY))
        self.everywhere = self.gather = lambda x: x                                          # one process
        self.path, self.labels = PathLength(), torch.arange(batch_size) % 2
        self.batch = dict(image=torch.rand(batch_size, 3, size, size)*2 - 1, label=self.labels)
        self.train = stylegan2_step(self, self.config, None, self.path, LastTerms())

    def update(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def run(self, work):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            if not self.published: return work()
            with as_published(): return work()

    def at_step(self, step): # 0: with path length and R1, 4: with path length, 1: without
        self.step = step
        torch.manual_seed(step)
        self.run(lambda: self.train(self.batch))

    def r1(self):
        D, augment = self.modules["D"], self.modules["augment"]
        self.run(lambda: self.update(self.optimizers["D"], r1_phase(D, augment, self.batch["image"], self.labels)))

    def path_length(self):
        self.run(lambda: self.update(self.optimizers["G"], path_phase(self.modules["G"], self.path, self.labels, .9)))

def check():
    "Both forms give the same images, logits, R1 and path lengths."
    def numbers(form):
        torch.manual_seed(1)
        G, D = form.modules["G"], form.modules["D"]
        images = G(torch.randn(4, 64), form.labels[:4])
        r1 = r1_phase(D, form.modules["augment"], form.batch["image"], form.labels)
        ws = G.styles(torch.randn(4, 64), form.labels[:4])
        path = path_lengths(G.synthesis(ws, "const").contiguous(), ws).mean()               # noise is drawn in the order of memory
        return torch.cat([images.flatten(), D(images, form.labels[:4]), r1[None], path[None]])
    forms = [Training(published, size=32) for published in (False, True)]
    ours, theirs = (form.run(lambda: numbers(form)) for form in forms)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)

def steps(what, turns, goal, **options):
    "A whole step: ours beside the published form."
    ours = options.pop("ours", {})
    forms = dict(medgan=Training(**options | ours), published=Training(True, **options))
    times = {name: [0.]*turns for name in forms}
    for step, share in ((0, 1/16), (4, 3/16), (1, 12/16)):
        taken = in_turns({name: lambda form=form: form.at_step(step) for name, form in forms.items()}, turns)
        times = {name: [a + share*b for a, b in zip(times[name], taken[name])] for name in forms}
    return compared(what, times, "medgan", "published", goal)

def lazy(name, turns, goal):
    forms = dict(medgan=Training(), published=Training(True))
    times = in_turns({key: getattr(form, name) for key, form in forms.items()}, turns)
    return compared(dict(r1="R1 alone, 64 px", path_length="path length alone, 64 px")[name], times, "medgan", "published", goal)

def memory(pipe, turns, goal):
    "What three steps add to the peak of a process, in MiB."
    def added(form):
        command = [sys.executable, "-m", "tests.benchmarks.bench_stylegan2", "--memory", form, "--pipe", pipe]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    pairs = [(added("medgan"), added("published")) for _ in range(turns)]
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    ratios = sorted(a/b for a, b in pairs)
    middle = statistics.median(ratios)
    return Row(f"memory of a step, 64 px, pipe {pipe}", "published", ours, theirs, "MiB", middle, ratios[0], ratios[-1], goal, True)

def resident(what):
    "VmRSS (now) or VmHWM (at most so far) of this process in MiB, as Linux tells."
    return int(re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])/1024

def measure_memory(form, pipe):
    training = Training(form == "published", pipe=pipe)
    before = resident("VmRSS")
    for step in (0, 4, 1): training.at_step(step)
    print(resident("VmHWM") - before)

def rows(quick):
    check()
    turns = 3 if quick else 9
    wide = dict(base=16384, most=256, batch_size=4)
    return [steps("step, 64 px laptop widths, no pipe", turns, 1.5),
            steps("step, 64 px laptop widths, pipe bgc at p = 0.5", turns, 2.2, pipe="bgc"),
            steps("step, 64 px 256 channels, batch 4, no pipe", max(turns//3, 1), 1.3, **wide),
            lazy("r1", turns, 1.2), lazy("path_length", turns, 1.2),
            steps("step, 64 px laptop widths, no pipe, ours bf16", turns, 1.8, ours=dict(precision="bf16")),
            memory("none", 1 if quick else 3, .95), memory("bgc", 1 if quick else 3, .7)]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--memory", default="")
    parser.add_argument("--pipe", default="none")
    args, _ = parser.parse_known_args()
    measure_memory(args.memory, args.pipe) if args.memory else main(rows, __doc__)
