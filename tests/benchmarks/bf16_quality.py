"""Do results differ between float32 and bfloat16? StyleGAN2-ADA on HAM10000 at 32 px, the same seeds with either.

MEDGAN_DATA=<folder> python -m tests.benchmarks.bf16_quality [--epochs 1] [--seeds 3]

Trains on the training part, draws 2,000 images from each averaged generator, and compares them with the test part in the features of
the shipped skin network: FID and its interval for each run, and the difference between the two precisions of each seed.
"""
import argparse

import numpy as np
import torch

from medgan.core.statistics import mean_interval
from medgan.data.images import as_image_data, load_data
from medgan.evaluate.features import image_features, load_extractor
from medgan.evaluate.metrics import compare_features
from medgan.models.stylegan2_train import draw_stylegan2, train_stylegan2
from tests.benchmarks.pairs import machine

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=float, default=1.)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = load_data("ham10000", size=32)
    parts = data.split()
    train, test = parts["train"], parts["test"]
    extractor = load_extractor("skin")
    real = image_features(test, extractor)
    labels = np.random.default_rng(0).choice(train.labels, 2000)                             # as frequent as in the training part
    found = {}
    for seed in range(args.seeds):
        for precision in ("no", "bf16"):
            trainer = train_stylegan2(train, epochs=args.epochs, seed=seed, precision=precision, mirror=True, progress="")
            z = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(labels), 64)).astype(np.float32))
            drawn = draw_stylegan2(trainer.ema["G"].average, z, torch.from_numpy(labels))
            images = as_image_data(drawn, name=f"drawn {precision} {seed}", labels=labels, classes=train.classes)
            fid = compare_features(image_features(images, extractor, keep=False), real, test.groups).loc["fid"]
            found[precision, seed] = fid.value
            rate = trainer.history.images_per_s.median()
            print(f"seed {seed}, {precision:4}: FID {fid.value:.2f} [{fid.low:.2f}, {fid.high:.2f}], {rate:.0f} images/s", flush=True)
    differences = [found["bf16", seed] - found["no", seed] for seed in range(args.seeds)]
    mean, low, high = mean_interval(np.array(differences), .95)
    spread = np.std([found["no", seed] for seed in range(args.seeds)], ddof=1)
    print(f"{machine()}; {len(train):,} training images, {args.epochs:g} epochs, {len(labels):,} drawn, {len(test):,} of the test part")
    print(f"bf16 - float32: {mean:+.2f} [{low:+.2f}, {high:+.2f}], n = {args.seeds} seeds; float32 alone varies by {spread:.2f} (sd)")

if __name__ == "__main__": main()
