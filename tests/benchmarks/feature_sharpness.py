"""Which features see sharpness? HAM10000 at 64 px: held-out images against blurred ones, in five kinds of features.

    MEDGAN_DATA=<folder> python -m tests.benchmarks.feature_sharpness [--epochs 20] [--autoencoder FOLDER]

The test part (no extractor has seen its lesions) is dealt by lesion into two halves, ten times. One half stands for real images. The
other one is compared with it as it is (the floor), blurred by a Gaussian of 0.5, 1 and 2 px, made lighter by 4 of 255, and replaced by
noise (the ceiling). The autoencoder learns from the training part; --autoencoder: the folder where its run is kept, or taken from.
Prints two tables in Markdown: FID, and by how many standard deviations of a deal each lies above the floor.
"""
import argparse

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from medgan.data.images import as_image_data, load_data
from medgan.data.splits import split_groups
from medgan.evaluate.features import Extractor, FeatureCNN, image_features, load_extractor, weights_file
from medgan.evaluate.general_features import load_autoencoder, train_autoencoder, trunk_maps
from medgan.evaluate.generators import noise_like
from medgan.evaluate.metrics import fid
from medgan.networks.imagenet import position_statistics
from medgan.training.checkpoints import checkpoints, load_checkpoint
from tests.benchmarks.pairs import machine

SIZE, DEALS, BLURS, LIGHTER = 64, 10, (.5, 1, 2), 4

def all_stages_of_skin():
    "The shipped skin network, but mean and standard deviation behind each of its stages, as in the other networks."
    state, card = load_checkpoint(weights_file("skin"))
    net = FeatureCNN(card["channels"], len(card["classes"]), card["width"]).eval()
    net.load_state_dict(state["net"])
    return Extractor(f"{card['name']}, all stages", 3, lambda x: position_statistics(trunk_maps(net, x)), "all-stages")

def changed_sets(data):
    "The same images, changed in one way each."
    pixels = data.images[data.rows].astype(np.float32)
    def as_set(name, x):
        rounded = np.rint(x.clip(0, 255)).astype(np.uint8)
        return as_image_data(rounded, name=name, labels=data.table.dx.to_numpy(), classes=data.classes)
    blurred = {f"blur {sd:g} px": as_set("blurred", gaussian_filter(pixels, (0, sd, sd, 0))) for sd in BLURS}
    return {"floor": data, **blurred, "lighter": as_set("lighter", pixels + LIGHTER), "noise": noise_like(data)}

def distances(judge, sets, halves):
    "FID of each set's second half against the first half of the images as they are: a row a deal."
    features = {name: image_features(data, judge, keep=False) for name, data in sets.items()}
    return pd.DataFrame([{name: fid(f[~half], features["floor"][half]) for name, f in features.items()} for half in halves])

def markdown(table):
    "A table of texts."
    head = [["features", *table.columns], ["---", *["--:"]*len(table.columns)]]
    rows = [*head, *([name, *row] for name, row in zip(table.index, table.values))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=float, default=20.)
    parser.add_argument("--autoencoder", default="")
    args = parser.parse_args()
    parts = load_data("ham10000", size=SIZE).split()
    test, folder = parts["test"], args.autoencoder
    if folder and checkpoints(folder): learned = load_autoencoder(folder)
    else: learned = train_autoencoder(parts["train"], epochs=args.epochs, out_dir=folder)
    judges = [load_extractor("skin"), all_stages_of_skin(), *(load_extractor("lite0", w).at(SIZE) for w in ("imagenet", "random")), learned]
    sets, groups = changed_sets(test), test.table.group
    halves = [split_groups(groups, test.table.dx, dict(a=.5, b=.5), seed) == "a" for seed in range(DEALS)]
    found = {judge.name: distances(judge, sets, halves) for judge in judges}
    print(f"{machine()}; {len(test):,} images of {groups.nunique():,} lesions, {DEALS} deals; autoencoder: {len(parts['train']):,} images")
    print("\nFID, mean over the deals\n")
    print(markdown(pd.DataFrame({name: t.mean().map("{:.3g}".format) for name, t in found.items()}).T))
    def above(t):
        extra = t.sub(t.floor, axis=0)
        return (extra.mean()/t.floor.std()).drop("floor").map("{:.1f}".format)
    print("\nAbove the floor, in its standard deviations between deals\n")
    print(markdown(pd.DataFrame({name: above(t) for name, t in found.items()}).T))

if __name__ == "__main__": main()
