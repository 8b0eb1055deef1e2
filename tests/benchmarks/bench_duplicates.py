"""Which copies of a photograph are found as duplicates when a set is prepared.

`MEDGAN_DATA=... python tests/benchmarks/bench_duplicates.py`

300 images of HAM10000 are saved anew in nine ways. A row a way: the number of bits of 256 in which its hash differs from the original's
(median, largest), and the share within the threshold. The last row: pairs of images of two lesions of the whole set."""
import io
import zipfile

import numpy as np
from PIL import Image

from medgan.data.images import load_data
from medgan.data.sources import ALIKE, look_of

def opened(locator):
    "The original, a file or a member of a zip file."
    path, _, member = locator.partition("::")
    if not member: return Image.open(path).convert("RGB")
    with zipfile.ZipFile(path) as archive: return Image.open(io.BytesIO(archive.read(member))).convert("RGB")

def saved(image, **how):
    "A picture as it comes out of a file."
    image.save(file := io.BytesIO(), how.pop("format", "JPEG"), **how)
    return Image.open(file)

def smaller(image): return image.resize((image.width//2, image.height//2), Image.Resampling.BICUBIC)
def cut(image): return image.crop((2, 2, image.width - 2, image.height - 2))

WAYS = {"JPEG, quality 90": lambda im: saved(im, quality=90), "JPEG, quality 70": lambda im: saved(im, quality=70),
        "JPEG, quality 40": lambda im: saved(im, quality=40), "PNG": lambda im: saved(im, format="PNG"),
        "half the side": lambda im: saved(smaller(im), quality=80), "15 % darker": lambda im: saved(im.point(lambda v: .85*v), quality=80),
        "15 % brighter": lambda im: saved(im.point(lambda v: min(255, 1.15*v)), quality=80),
        "grey": lambda im: saved(im.convert("L"), quality=80), "2 px cut off each side": lambda im: saved(cut(im), quality=90)}

def main():
    data = load_data("ham10000", size=64)
    rows = np.random.default_rng(0).permutation(len(data))[:300]
    found = {way: [] for way in WAYS}
    for locator in data.table.image[rows]:
        image = opened(locator)
        for way, copy in WAYS.items(): found[way].append(int(np.unpackbits(look_of(image) ^ look_of(copy(image))).sum()))
    print("| saved anew as | median | largest | found |\n|---|---|---|---|")
    for way, bits in found.items(): print(f"| {way} | {np.median(bits):g} | {max(bits)} | {np.mean(np.array(bits) <= ALIKE):.1%} |")
    told = data.table[data.table.looks_like != ""]
    print(f"{len(told)} of {len(data):,} images look like one of another lesion: {', '.join(told.id)}")

if __name__ == "__main__": main()
