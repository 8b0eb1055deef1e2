"""Which settings of the projected GAN make the most of a minute: each trained for the same time, one thing changed at a time.

    MEDGAN_DATA=<folder> OMP_NUM_THREADS=1 python -m tests.benchmarks.projected_settings --out <folder> [--seconds 600] [NAME ...]

HAM10000 at 64 px with its seven classes, one thread, seed 0; 2,000 images of the averaged generator against the training part, FID
in three kinds of features (EfficientNet-Lite is a relative of the network that the discriminators look through). One training a
row: differences of a third and less are noise. A run that was stopped goes on from its folder.
"""
import argparse

import torch

from medgan.analysis.race import Contestant, judge_race, race
from medgan.data.images import load_data
from medgan.evaluate.features import load_extractor
from medgan.models.projected_gan import DrawnProjected, train_projected_gan
from medgan.training.parameters import fast_bf16
from tests.benchmarks.pairs import machine

ROWS = {
    "defaults": {},
    "features of 96 px": dict(feature_size=96),
    "features of 128 px": dict(feature_size=128),
    "half the mixed channels": dict(mix_width=32),
    "three levels": dict(n_levels=3),
    "generator half as wide": dict(width=4),
    "generator twice as wide": dict(width=16),
    "StyleGAN2's generator": dict(generator="stylegan2"),
    "learning rate 2e-4": dict(lr=2e-4),
    "learning rate 1e-3": dict(lr=1e-3),
    "batches of 8": dict(batch_size=8),
    "random feature network": dict(weights="random"),
    "no feature network": dict(weights="none"),
    "colours augmented too": dict(colour=True),
} | ({"bfloat16": dict(precision="bf16")} if fast_bf16() else {})

def contestant(changes):
    return Contestant(train_projected_gan, lambda run: DrawnProjected(run.ema["G"].average), z_dim=128, settings=changes)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--out", required=True, help="folder for the runs")
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = load_data("ham10000", size=64).split(seed=0)
    extractors = [load_extractor("skin"), load_extractor("lite0"), load_extractor("lite0", "random")]
    print(machine())
    for name in given.names or ROWS:
        table = race({name: contestant(ROWS[name])}, parts["train"], [given.seconds/2, given.seconds], given.out, seeds=[0], progress="")
        judged = judge_race(table, parts["train"], parts["test"], extractors, n_splits=0)
        for mark, part in judged[judged.metric == "fid"].groupby("mark"):
            fids = ", ".join(f"{row.features}: {row.value:.1f}" for row in part.itertuples())
            speed = 1000*part.kimg.iloc[0]/mark
            print(f"| {name} | {mark:.0f} s | {part.kimg.iloc[0]:.1f} kimg | {speed:.1f} images/s | {fids} |", flush=True)

if __name__ == "__main__": main()
