"""How fast the metrics are on given features, and how much memory they take, beside their authors' packages.

python -m tests.benchmarks.bench_metrics [--quick]

N images against N, of 192 features (medgan's own networks) and of 2,048 (Inception's). The features lie near a surface of 12
dimensions, so that some are inside the balls of others and some are not; they are not negative, as after a ReLU (of negative
numbers NumPy's power, by which torch-fidelity makes the kernel, is ten times as slow). What each line compares:

- precision + recall: torch-fidelity (k = 3). Ours computes density and coverage in the same call, and is timed with them.
- density + coverage: the package prdc (k = 5), which computes precision and recall in the same call, too; on one thread, as we do.
- KID, everything: torch-fidelity with one subset of all images, that is the same number of kernel values. Its usual 100 subsets of 1,000
  are another amount of work (3e8 kernel values, ours are 2 N^2) and another estimate, with more noise: that line has no goal.
- FID is torch-fidelity's own code, so that a comparison with it would say nothing; it stands beside the formula as it is published,
  without a goal.
- intervals: everything and both halves of 20 deals, by `compare_features` in one go and by torch-fidelity one after the other.
- memory: how far a process of its own grows in the call (Linux).
"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.linalg
import torch
from prdc import compute_prdc
from sklearn.metrics import pairwise_distances
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from medgan.evaluate.metrics import compare_features, fid, half_splits, kid, prdc
from tests.benchmarks.pairs import Row, compared, in_turns, main

def features(n, dim):
    "Generated and real ones, float32 (N,dim)."
    rng = np.random.default_rng(0)
    surface = rng.standard_normal((12, dim), np.float32)
    def one(shift, spread):
        x = (shift + spread*rng.standard_normal((n, 12), np.float32)) @ surface
        for row in x: row += .3*rng.standard_normal(dim, np.float32)          # one by one: no memory that is given back
        return np.maximum(x, 0, out=x)
    return one(np.float32(.3), np.float32(.9)), one(np.float32(0), np.float32(1))

def their_fid(x, y):
    "torch-fidelity's."
    return fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)), False)

def published_fid(x, y):
    "Heusel et al. 2017, eq. 6."
    (μx, Σx), (μy, Σy) = ((f.mean(0, dtype=np.float64), np.cov(f, rowvar=False, dtype=np.float64)) for f in (x, y))
    return ((μx - μy)**2).sum() + np.trace(Σx + Σy - 2*scipy.linalg.sqrtm(Σx @ Σy).real)

def their_kid(x, y, n_subsets=1, size=None):
    "torch-fidelity's."
    return kid_features_to_metric(*map(torch.from_numpy, (x, y)), kid_subsets=n_subsets, kid_subset_size=size or len(x), verbose=False)

def their_precision(x, y):
    "torch-fidelity's precision and recall."
    return prc_features_to_metric(*map(torch.from_numpy, (x, y)), verbose=False)

def their_prdc(x, y):
    "The package's: real ones first, and eight threads if it were asked."
    def on_one_thread(a, b, metric, n_jobs): return pairwise_distances(a, b, metric=metric)
    with redirect_stdout(StringIO()), patch("sklearn.metrics.pairwise_distances", on_one_thread): return compute_prdc(y, x, 5)

def in_one_go(x, y):
    "All metrics of everything and of 40 halves."
    return compare_features(x, y, n_splits=20)

def one_after_the_other(x, y):
    "The same by torch-fidelity, without density and coverage."
    for a, b in zip(half_splits(len(x)), half_splits(len(y), seed=1)):
        for metric in (their_fid, their_kid, their_precision): metric(x[a], y[b])

WAYS = dict(     # what is computed, beside what, ours, theirs, goal
    precision=("precision + recall", "torch-fidelity", prdc, their_precision, 1.),
    coverage=("density + coverage", "prdc", prdc, their_prdc, 1.),
    kid=("KID, everything", "torch-fidelity, 1 subset of all", kid, their_kid, 1.),
    subsets=("KID", "torch-fidelity, 100 subsets of 1,000", kid, lambda x, y: their_kid(x, y, 100, 1000), float("nan")),
    fid=("FID", "the formula in NumPy and SciPy", fid, published_fid, float("nan")),
    intervals=("intervals from 20 deals", "torch-fidelity, 41 times", in_one_go, one_after_the_other, 1.))

def time(key, n, dim, turns):
    "How many times as fast ours is."
    what, against, ours, theirs, goal = WAYS[key]
    x, y = features(n, dim)
    times = in_turns({"medgan": lambda: ours(x, y), against: lambda: theirs(x, y)}, turns)
    return compared(f"{what}, {n:,} x {dim:,}", times, "medgan", against, goal)

def grown(key, who, n, dim):
    "MiB by which this process grows at most in one call."
    way, (x, y) = WAYS[key][who], features(n, dim)
    way(x[:100], y[:100])                                  # what is made once
    Path("/proc/self/clear_refs").write_text("5")          # the peak so far is forgotten
    def kib(name): return int(Path("/proc/self/status").read_text().split(name)[1].split()[0])
    before = kib("VmRSS:")
    way(x, y)
    return (kib("VmHWM:") - before)/1024

def memory(key, n, dim):
    "What ours takes of theirs, each in a process of its own."
    def alone(who):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other: return other.submit(grown, key, who, n, dim).result()
    ours, theirs = alone(2), alone(3)
    ratio = ours/theirs
    return Row(f"memory of {WAYS[key][0]}, {n:,} x {dim:,}", WAYS[key][1], ours, theirs, "MiB", ratio, ratio, ratio, 1., at_most=True)

def rows(quick):
    n, turns = (2000, 2) if quick else (10_000, 3)
    measured = [time(key, n, dim, turns) for dim in (192, 2048) for key in ("precision", "coverage", "kid", "subsets", "fid")]
    measured.append(time("intervals", 2000, 192, turns))
    measured += [memory(key, n, dim) for dim in (192, 2048) for key in ("precision", "coverage", "kid")]
    return measured + [memory("intervals", 2000, 192)]

if __name__ == "__main__": main(rows, __doc__)
