"""Which share of copies in disguise is found, by kind and strength, and how many false alarms: the tables of nbs/evaluate/06_copies.

    python tests/benchmarks/bench_copies.py phantom 800 450 20
    MEDGAN_DATA=<folder> python tests/benchmarks/bench_copies.py ham10000 2000 450 20
"""
import sys
from time import perf_counter

from medgan.data.images import load_data
from medgan.evaluate.copies import disguise_table

if __name__ == "__main__":
    name, n_train, n_held_out, n = sys.argv[1], *map(int, sys.argv[2:])
    data = load_data(name, size=64, **(dict(n=3200) if name == "phantom" else {}))
    parts = data.split(dict(train=.5, held_out=.25, others=.25))
    sizes = dict(train=n_train, held_out=n_held_out, others=n_held_out)
    train, held_out, others = (parts[part].subset(range(min(size, len(parts[part])))) for part, size in sizes.items())
    began = perf_counter()
    table = disguise_table(train, held_out, others, n)
    print(f"{data.name}: {len(train):,} training images, {len(held_out)} held out, {n} copies of each kind and strength; "
          f"{perf_counter() - began:.0f} s")
    for kind, rows in table.groupby("kind", sort=False):
        shares = " | ".join(f"{s:g}: {100*share:.0f} %" for s, share in zip(rows.strength, rows.share))
        print(f"| {kind} | {shares} | {rows.k.sum()} of {rows.n.sum()} |")
    last = table.iloc[-1]
    print(f"false alarms: {last.k} of {last.n}, {last.share:.2%} [{last.low:.2%}, {last.high:.2%}]")
