"""How long a data set takes to prepare and to open again, and how fast batches are read from it.

python tests/benchmarks/bench_data.py [--data ham10000] [--data_dir ...] [--size 64] [--batch_size 64]

With MEDGAN_DATA (or --data_dir) on real data, otherwise on 2,000 generated 600x450 JPEGs. Its own cache, in a temporary folder.
Prints a table; exits 1 where a limit is passed (preparing < 60 s, opening < 1 s, reading > 10,000 and drawing phantoms > 500
images/s at 64 px).
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")     # before torch: steadier times on machines that are not idle

import numpy as np
from PIL import Image

from medgan.data.images import load_data
from medgan.data.phantoms_skin import draw_skin, skin_phantom_table

def generate(root, n=2000):
    "A folder set of smooth colourful JPEGs in the size of HAM10000's originals."
    rng = np.random.default_rng(0)
    for i in range(n):
        folder = root/f"class {i % 4}"
        folder.mkdir(exist_ok=True, parents=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((600, 450), Image.Resampling.BICUBIC).save(folder/f"{i}.jpg", quality=90)

def timed(work):
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started

def read_all(data, batch_size, epochs=3):
    "Images per second over shuffled batches."
    rng, n = np.random.default_rng(0), len(data)//batch_size*batch_size
    def epoch():
        for rows in rng.permutation(len(data))[:n].reshape(-1, batch_size): data.read(rows)
    epoch()
    return n/min(timed(epoch)[1] for _ in range(epochs))

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="")
    parser.add_argument("--data_dir", default=os.environ.get("MEDGAN_DATA", ""))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        os.environ["MEDGAN_CACHE"] = str(Path(temp)/"cache")
        name, folder = args.data or ("ham10000" if args.data_dir else "folder"), args.data_dir
        if not folder and name == "folder":
            folder = str(Path(temp)/"images")
            generate(Path(folder))
        data, first = timed(lambda: load_data(name, folder, size=args.size))
        data, second = timed(lambda: load_data(name, folder, size=args.size))
        rate = read_all(data, args.batch_size)
    phantoms = skin_phantom_table(2000)
    draw_skin(phantoms[:8], args.size)                                                  # makes the textures, once a process
    drawn = len(phantoms)/timed(lambda: draw_skin(phantoms, args.size))[1]
    print(f"\n{name}: {len(data):,} images at {args.size} px\n")
    rows = [("preparing, s", first, 60, first < 60), ("  images/s", len(data)/first, "", True), ("opening again, s", second, 1, second < 1),
            ("reading, images/s", rate, "> 10,000" if args.size == 64 else "", rate > 10_000 or args.size != 64),
            ("drawing phantoms, images/s", drawn, "> 500" if args.size == 64 else "", drawn > 500 or args.size != 64)]
    for what, value, limit, _ in rows: print(f"{what:28}{value:12,.2f}{limit:>12}")
    return int(not all(kept for *_, kept in rows))

if __name__ == "__main__": sys.exit(main())
