"""CycleGAN's training step as medgan takes it, beside the same step written plainly.

The plain form is what a paper's code does: `nn.InstanceNorm2d`, `nn.Upsample` and a convolution, Adam as PyTorch gives it, a pass of the
discriminator for the real images and one for the fakes. It starts from the same weights, batches and seeds, and must give the same losses
before anything is timed.
"""
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from medgan.models.cyclegan import (
    CycleGANConfig,
    ImagePool,
    adam_pair,
    build_discriminator,
    build_generator,
    cyclegan_step,
)
from medgan.networks.augmentation import random_flips
from medgan.training.loop import Trainer
from tests.benchmarks.pairs import Row, in_both_precisions, main

# ---- the plain form

def convolution(a: int, b: int, kernel: int, stride: int = 1, slope: float = 0.) -> list[nn.Module]:
    return [nn.Conv2d(a, b, kernel, stride, kernel//2, bias=False), nn.InstanceNorm2d(b, affine=True), nn.LeakyReLU(slope)]

class PlainBlock(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.layers = nn.Sequential(*convolution(n, n, 3, slope=.2), *convolution(n, n, 3)[:2])

    def forward(self, x): return x + self.layers(x)

class PlainGenerator(nn.Module):
    "Two strided convolutions, residual blocks, two resizes."
    def __init__(self, channels, width, n_blocks):
        super().__init__()
        w = width
        down = [*convolution(channels, w, 7), *convolution(w, 2*w, 3, 2), *convolution(2*w, 4*w, 3, 2)]
        up = [nn.Upsample(scale_factor=2), *convolution(4*w, 2*w, 3), nn.Upsample(scale_factor=2), *convolution(2*w, w, 3)]
        blocks = [PlainBlock(4*w) for _ in range(n_blocks)]
        self.layers = nn.Sequential(*down, *blocks, *up, nn.Conv2d(w, channels, 3, padding=1), nn.Sigmoid())

    def forward(self, x): return self.layers(x)

class PlainDiscriminator(nn.Module):
    "Four strided convolutions and a score for each patch."
    def __init__(self, channels, width):
        super().__init__()
        widths, layers = [channels, width, 4*width, 8*width, 16*width], []
        for a, b in zip(widths, widths[1:]): layers += [nn.Conv2d(a, b, 4, 2, 1), nn.InstanceNorm2d(b, affine=True), nn.LeakyReLU(.2)]
        self.layers = nn.Sequential(*layers, nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(widths[-1], 1, 4), nn.Identity())

    def forward(self, x): return self.layers(x)

def plain_step(nets: dict[str, nn.Module], opt_G, opt_D, pools: dict[str, ImagePool], config: CycleGANConfig) -> Callable[[dict], dict]:
    "Both discriminators, then both generators (Zhu et al. 2017)."
    G, F, D_a, D_b = (nets[name] for name in ("G", "F", "D_a", "D_b"))
    def judge_loss(D, real, fake): return ((D(real) - 1)**2).mean()/2 + (D(fake)**2).mean()/2
    def step(batch):
        a, = random_flips(batch["a"])
        b, = random_flips(batch["b"])
        fake_b, fake_a = G(a), F(b)
        cycle = (F(fake_b) - a).abs().mean() + (G(fake_a) - b).abs().mean()
        shown_a, shown_b = pools["D_a"].exchange(fake_a.detach()), pools["D_b"].exchange(fake_b.detach())
        loss_D = judge_loss(D_a, a, shown_a) + judge_loss(D_b, b, shown_b)
        opt_D.zero_grad()
        loss_D.backward()
        opt_D.step()
        for p in (*D_a.parameters(), *D_b.parameters()): p.requires_grad_(False)
        gan = ((D_b(fake_b) - 1)**2).mean()/2 + ((D_a(fake_a) - 1)**2).mean()/2
        opt_G.zero_grad()
        (gan + config.cycle*cycle).backward()
        opt_G.step()
        for p in (*D_a.parameters(), *D_b.parameters()): p.requires_grad_(True)
        return dict(loss_D=loss_D, gan=gan, cycle=cycle)
    return step


# ---- both forms, from the same weights

def our_nets(config: CycleGANConfig) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return dict(G=build_generator(config), F=build_generator(config), D_a=build_discriminator(config), D_b=build_discriminator(config))

def ours(config: CycleGANConfig, size: int) -> Callable[[], dict]:
    "As `train_cyclegan` does it."
    nets = our_nets(config)
    optimizers = adam_pair(nets, config)
    exchange = {name: ImagePool(config.pool).exchange for name in ("D_a", "D_b")}
    trainer = Trainer(nets, optimizers, progress="")
    make = cyclegan_step(dict(cycle=config.cycle, identity=config.identity))
    return under(config, size, make(nets, optimizers, trainer.update, exchange))

def theirs(config: CycleGANConfig, size: int) -> Callable[[], dict]:
    "The plain form."
    def generator(): return PlainGenerator(config.channels, config.width, config.n_blocks)
    def discriminator(): return PlainDiscriminator(config.channels, config.d_width)
    nets = dict(G=generator(), F=generator(), D_a=discriminator(), D_b=discriminator())
    for name, same in our_nets(config).items(): nets[name].load_state_dict(same.state_dict())
    def adam(*names): return torch.optim.Adam([p for n in names for p in nets[n].parameters()], config.lr, betas=(config.beta1, .999))
    pools = {name: ImagePool(config.pool) for name in ("D_a", "D_b")}
    return under(config, size, plain_step(nets, adam("G", "F"), adam("D_a", "D_b"), pools, config))

def under(config: CycleGANConfig, size: int, step: Callable[[dict], dict]) -> Callable[[], dict[str, Tensor]]:
    "A step in the configuration's precision, always with the same batch and the same chance."
    a, b = torch.rand(2, config.batch_size, config.channels, size, size, generator=torch.Generator().manual_seed(1))
    def once():
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"): return step(dict(a=a, b=b))
    return once


# ---- what is measured

def measured(size: int, turns: int, goal: float, goal_bf16: float) -> list[Row]:
    "One size in float32 and in bf16."
    config, bf16 = CycleGANConfig(), CycleGANConfig(precision="bf16")
    ways = {"medgan": ours(config, size), "plain": theirs(config, size),
            "medgan, bf16": ours(bf16, size), "plain, bf16": theirs(bf16, size)}
    what = f"CycleGAN, {size} px, width {config.width}, batch {config.batch_size}"
    return in_both_precisions(what, ways, turns, 3, .05, goal, goal_bf16)

def rows(quick: bool) -> list[Row]:
    at_64 = measured(64, 7 if quick else 31, 1.05, 1.5)
    return at_64 if quick else at_64 + measured(128, 11, math.nan, math.nan)

if __name__ == "__main__": main(rows, __doc__)
