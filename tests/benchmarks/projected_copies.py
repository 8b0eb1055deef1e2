"""Does the privacy report see a projected GAN that copies? Trained on so many images, for so long as is said.

    MEDGAN_DATA=<folder> OMP_NUM_THREADS=1 python -m tests.benchmarks.projected_copies --images 100 --kimg 20 [--bare]

HAM10000 at 64 px, without classes; one image a lesion. 1,000 images of the averaged generator are held against the training images
and against as many held-out ones of other lesions; the spaces are those of `privacy_report` that need no features.
"""
import argparse
from pathlib import Path

from medgan.analysis.privacy import closest_pairs, privacy_report
from medgan.data.images import load_data
from medgan.evaluate.generators import Generated
from medgan.models.projected_gan import DrawnProjected, train_projected_gan
from tests.benchmarks.pairs import machine

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--kimg", type=float, default=20)
    parser.add_argument("--bare", action="store_true", help="without augmentation")
    parser.add_argument("--figure", default="", help="where to write the closest pairs, *.jpg")
    given = parser.parse_args()
    parts = load_data("ham10000", size=64).split(seed=0)
    one_each = {name: part.subset((~part.table.group.duplicated()).to_numpy().nonzero()[0]) for name, part in parts.items()}
    train = one_each["train"].subset(range(given.images))
    held_out = one_each["test"].subset(range(min(max(given.images, 500), len(one_each["test"]))))
    augmentation = dict(translation=not given.bare, cutout=not given.bare)
    run = train_projected_gan(train, augmentation, classes=(), epochs=1000*given.kimg/len(train), progress="")
    made = Generated(DrawnProjected(run.ema["G"].average), run.ema["G"].average.z_dim, n=1000).data()
    report = privacy_report(made, train, held_out)
    print(f"{machine()}; {len(train):,} training images, {len(held_out):,} held out, {run.images/1000:.1f} kimg")
    print(report.table.round(3).to_string(index=False))
    if given.figure: Path(given.figure).write_bytes(closest_pairs(report, 16).data)

if __name__ == "__main__": main()
