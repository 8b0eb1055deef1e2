"""DermGAN's and pix2pix's training steps as medgan takes them, beside the same steps written plainly.

The plain form is what a paper's code does: `nn.Upsample` and a convolution (or a transposed one), Adam as PyTorch gives it, the losses in a
row. It starts from the same weights, batches and seeds, and must give the same losses before anything is timed.

pix2pix has no resize to save on; what it gains is Adam's step and the deepest convolutions, so most where the weights are many and the
pixels few. At 256 px other convolutions are most of the step, and both forms have them.
"""
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.dermgan import DermGANConfig, build_dermgan, dermgan_step
from medgan.networks.augmentation import random_turns
from medgan.training.loop import Trainer
from tests.benchmarks.pairs import Row, in_both_precisions, main

PIX2PIX = dict(upsampling="transposed", w_rec=100., w_roi=0., w_fm=0.)


# ---- the plain form

class PlainUNet(nn.Module):
    "pix2pix's generator (Isola et al. 2017), with either way up."
    def __init__(self, size, width, is_transposed):
        super().__init__()
        c = [width*min(2**i, 8) for i in range(int(math.log2(size)))]
        n = len(c)
        def up(a, b): return nn.ConvTranspose2d(a, b, 4, 2, 1) if is_transposed else \
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1))
        def norm(i): return [nn.BatchNorm2d(c[i])] if 0 < i < n - 1 else []
        self.down = nn.ModuleList([nn.Sequential(nn.Conv2d(3, c[0], 4, 2, 1))])
        for i in range(1, n): self.down.append(nn.Sequential(nn.LeakyReLU(.2), nn.Conv2d(c[i - 1], c[i], 4, 2, 1), *norm(i)))
        self.up = nn.ModuleList([nn.Sequential(nn.ReLU(), up(c[-1], c[-2]), nn.BatchNorm2d(c[-2]))])
        for i in range(n - 2, 0, -1): self.up.append(nn.Sequential(nn.ReLU(), up(2*c[i], c[i - 1]), nn.BatchNorm2d(c[i - 1])))
        self.up.append(nn.Sequential(nn.ReLU(), up(2*c[0], 3)))

    def forward(self, x):
        seen = []
        for level in self.down:
            x = level(x)
            seen.append(x)
        for i, level in enumerate(self.up):
            x = level(torch.cat([x, seen[-1 - i]], 1) if i else x)
            if i < 3: x = F.dropout(x, .5)
        return torch.tanh(x)

class PlainPatchGAN(nn.Module):
    "The discriminator of 70 x 70 patches; also gives the features that DermGAN matches."
    def __init__(self, width):
        super().__init__()
        def block(a, b, stride): return [nn.LeakyReLU(.2), nn.Conv2d(a, b, 4, stride, 1)]
        self.features = nn.Sequential(nn.Conv2d(6, width, 4, 2, 1), *block(width, 2*width, 2), nn.BatchNorm2d(2*width),
                                      *block(2*width, 4*width, 2), nn.BatchNorm2d(4*width), *block(4*width, 8*width, 1))
        self.output = nn.Sequential(nn.BatchNorm2d(8*width), nn.LeakyReLU(.2), nn.Conv2d(8*width, 1, 4, 1, 1))

    def forward(self, m, x):
        features = self.features(torch.cat([m, x], 1))
        return self.output(features), features

def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

def plain_step(G, D, opt_G, opt_D, config: DermGANConfig) -> Callable[[dict], dict]:
    "D, then G, by the paper's losses; without feature matching the discriminator is asked once, as pix2pix does."
    def step(batch):
        x, m = random_turns(batch["image"], batch["map"])
        fake = G(m)
        loss_D = bce(D(m, x)[0], 1) + bce(D(m, fake.detach())[0], 0)
        opt_D.zero_grad()
        (loss_D/2).backward()
        opt_D.step()
        for p in D.parameters(): p.requires_grad_(False)
        logits, features = D(m, fake)
        terms = dict(gan=bce(logits, 1), rec=F.l1_loss(fake, x))
        loss = config.w_gan*terms["gan"] + config.w_rec*terms["rec"]
        if config.w_roi:
            roi = (m[:, 1:] > -1).any(1, keepdim=True)
            area = (3*roi.sum((1, 2, 3))).clamp_min(1)
            terms["roi"] = (((fake - x).abs()*roi).sum((1, 2, 3))/area).mean()
            loss = loss + config.w_roi*terms["roi"]
        if config.w_fm:
            with torch.no_grad(): _, wanted = D(m, x)
            terms["fm"] = ((features - wanted)**2).mean((1, 2, 3)).sqrt().mean()
            loss = loss + config.w_fm*terms["fm"]
        opt_G.zero_grad()
        loss.backward()
        opt_G.step()
        for p in D.parameters(): p.requires_grad_(True)
        return dict(loss_D=loss_D, **terms)
    return step


# ---- both forms, from the same weights

def batch_of(config: DermGANConfig) -> dict[str, Tensor]:
    "Images and maps of one box each."
    chance, shape = torch.Generator().manual_seed(1), (config.batch_size, 3, config.size, config.size)
    m = torch.full(shape, -1.)
    m[:, 0] = torch.rand(config.batch_size, 1, 1, generator=chance)
    m[:, 1:, config.size//4:config.size//2, config.size//3:config.size//2] = .5
    return dict(image=2*torch.rand(shape, generator=chance) - 1, map=m)

def ours(config: DermGANConfig) -> Callable[[], dict]:
    "As `train_dermgan` does it."
    torch.manual_seed(0)
    G, D = build_dermgan(config)
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), config.lr, betas=(config.beta1, .999), fused=True) for net in (G, D))
    trainer = Trainer(dict(G=G, D=D), dict(G=opt_G, D=opt_D), progress="")
    return under(config, dermgan_step(G, D, opt_G, opt_D, trainer.update, config.weights, lambda: config.lr))

def theirs(config: DermGANConfig) -> Callable[[], dict]:
    "The plain form."
    torch.manual_seed(0)
    G, D = PlainUNet(config.size, config.width, config.upsampling == "transposed"), PlainPatchGAN(config.width)
    for net, same in zip((G, D), build_with_seed(config)): net.load_state_dict(same.state_dict())
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), config.lr, betas=(config.beta1, .999)) for net in (G, D))
    return under(config, plain_step(G, D, opt_G, opt_D, config))

def build_with_seed(config: DermGANConfig) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return build_dermgan(config)

def under(config: DermGANConfig, step: Callable[[dict], dict]) -> Callable[[], dict]:
    "A step in the configuration's precision, always with the same chance."
    batch = batch_of(config)
    def once():
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"): return step(batch)
    return once


# ---- what is measured

def config_of(**changes) -> DermGANConfig: return DermGANConfig(classes=("a", "b"), **changes)

CASES = [  # what, its configuration, turns, goal in float32, goal in bf16 (against plain float32)
    ("DermGAN, 64 px, width 16, batch 16", dict(size=64), 9, 1.25, math.nan),
    ("DermGAN, 128 px, width 16, batch 16", dict(size=128), 5, 1.45, 1.8),
    ("DermGAN, 128 px, width 32, batch 16", dict(size=128, width=32), 3, math.nan, math.nan),
    ("pix2pix, 128 px, width 64, batch 2", dict(size=128, width=64, batch_size=2, **PIX2PIX), 5, 1.1, math.nan),
    ("pix2pix, 256 px, width 64, batch 2", dict(size=256, width=64, batch_size=2, **PIX2PIX), 3, math.nan, math.nan)]

def measured(what: str, options: dict, turns: int, goal: float, goal_bf16: float) -> list[Row]:
    "One case in float32 and in bf16."
    config = config_of(**options)
    bf16 = config_of(**options, precision="bf16")
    ways = {"medgan": ours(config), "plain": theirs(config), "medgan, bf16": ours(bf16), "plain, bf16": theirs(bf16)}
    return in_both_precisions(what, ways, turns, 1, .02, goal, goal_bf16)

def rows(quick: bool) -> list[Row]:
    return [row for case in CASES[:2 if quick else None] for row in measured(*case)]

if __name__ == "__main__": main(rows, __doc__)
