"""How fast files become a data set, how fast it opens again, and how fast batches are read from it.

python -m tests.benchmarks.bench_data [--quick]

Generated JPEGs of 600 x 450 px (HAM10000's size) at 64 px, in a cache of their own. What each line compares:

- reading: an epoch of shuffled batches of 64 by `ImageData.read`, beside torch's DataLoader (no workers: everybody has one thread)
  over the files, each opened, cut to its centre square and resized by Pillow when it is asked for; the same with Pillow's draft mode, in
  which libjpeg decodes at the next larger of 1/2, 1/4, 1/8 of the size; and over the same bytes in memory as medgan has.
- preparing: `load_data` with an empty cache, beside Pillow over the same files, which has no goal. medgan uses draft mode, too, and
  takes as long for the pixels. As long again it takes for the look of a file, by which duplicates are found: each JPEG is decoded
  a second time, at 1/8 of its size, so that the look is the same whatever the pixels' size.
- opening again: beside preparing.
- limits: 167 images a second are HAM10000 in a minute; 500 phantoms a second.
"""
import os
import statistics
import tempfile
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from medgan.data.images import load_data
from medgan.data.phantoms_skin import draw_skin, skin_phantom_table
from tests.benchmarks.pairs import Row, compared, in_turns, main

SIZE, BATCH = 64, 64

def generate(root, n):
    "A folder set of colourful JPEGs with some noise, as large as HAM10000's."
    rng = np.random.default_rng(0)
    for i in range(n):
        folder = root/f"class {i % 4}"
        folder.mkdir(exist_ok=True, parents=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((600, 450), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, 5, (450, 600, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder/f"{i}.jpg", quality=95)

def decoded(path, draft):
    "The usual lines."
    with Image.open(path) as image:
        if draft: image.draft("RGB", (SIZE, SIZE))
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side)/2, (image.height - side)/2
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)))

class Items(Dataset):
    "Images one by one, as a DataLoader wants them."
    def __init__(self, pixels, labels): self.pixels, self.labels = pixels, labels    # pixels: row -> uint8 (H,W,3)
    def __len__(self): return len(self.labels)
    def __getitem__(self, row):
        return torch.from_numpy(np.array(self.pixels(row))).permute(2, 0, 1).float().div_(127.5).sub_(1), self.labels[row]

def loader(pixels, labels):
    batches = DataLoader(Items(pixels, labels), BATCH, shuffle=True, drop_last=True)
    def epoch():
        for _ in batches: pass
    return epoch

def reader(data):
    rng = np.random.default_rng(0)
    def epoch():
        for rows in rng.permutation(len(data))[:len(data)//BATCH*BATCH].reshape(-1, BATCH): data.read(rows)
    return epoch

def readings(data, paths, turns):
    "Reading, beside a DataLoader."
    ours = {"medgan": reader(data)}
    files = {f"DataLoader over files{', draft' if draft else ''}": loader(lambda row, draft=draft: decoded(paths[row], draft), data.labels)
             for draft in (False, True)}
    memory = {"DataLoader over bytes in memory": loader(lambda row: data.images[row], data.labels)}
    from_files, from_memory = in_turns(ours | files, turns), in_turns(ours | memory, 10*turns)
    return [*(compared("reading an epoch", from_files, "medgan", name, 20.) for name in files),
            *(compared("reading an epoch", from_memory, "medgan", name, 1.) for name in memory)]

def preparations(root, paths, turns, cache):
    "Preparing, beside Pillow; opening again."
    numbers = count()
    def load(): return load_data("folder", str(root), size=SIZE)
    def prepare():
        os.environ["MEDGAN_CACHE"] = str(cache/str(next(numbers)))
        return load()
    def pillow(draft): return lambda: [decoded(path, draft) for path in paths]
    one_thread = patch("medgan.data.sources.os.cpu_count", lambda: 1)
    ways = {"Pillow": pillow(False), "Pillow, draft": pillow(True), "preparing": prepare, "opening": load}     # opens what is prepared
    with one_thread: times = in_turns(ways, turns)
    return [compared("preparing", times, "preparing", "Pillow"), compared("preparing", times, "preparing", "Pillow, draft"),
            compared("opening again", times, "opening", "preparing", 20.), limited("preparing", len(paths), times["preparing"], 167)]

def limited(what, n, times, limit):
    "Images a second, of which there are to be so many."
    low, ratio, high = statistics.quantiles([n/seconds/limit for seconds in times], n=4)
    return Row(what, "a limit", limit*ratio, limit, "images/s", ratio, low, high, 1.)

def drawing(n, turns):
    "Phantoms."
    phantoms = skin_phantom_table(n)
    return limited("drawing phantoms", n, in_turns({"": lambda: draw_skin(phantoms, SIZE)}, turns)[""], 500)

def rows(quick):
    n, turns = (256, 2) if quick else (2048, 3)
    with tempfile.TemporaryDirectory() as temp:
        root, cache = Path(temp)/"images", Path(temp)/"cache"
        generate(root, n)
        os.environ["MEDGAN_CACHE"] = str(cache)
        data = load_data("folder", str(root), size=SIZE)
        paths = sorted(root.rglob("*.jpg"))
        return [*readings(data, paths, turns), *preparations(root, paths, turns, cache), drawing(n, turns)]

if __name__ == "__main__": main(rows, __doc__)
