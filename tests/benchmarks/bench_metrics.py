"""How long the metrics take, beside torch-fidelity on the same features: python tests/benchmarks/bench_metrics.py

10,000 against 10,000: each metric on random features, the memory of precision, recall, density and coverage in a process of its
own, and the features of phantoms at 64 px with the shipped network."""
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from medgan.data.images import load_data
from medgan.evaluate.features import image_features, load_extractor
from medgan.evaluate.metrics import compare_features, fid, kid, prdc

N, DIM = 10_000, 192

def features():
    rng = np.random.default_rng(0)
    return rng.normal(.1, 1.1, (N, DIM)).astype(np.float32), rng.normal(size=(N, DIM)).astype(np.float32)

def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

def peak_mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

if len(sys.argv) > 1:                      # in the process of its own
    x, y = features()
    if sys.argv[1] == "prdc": prdc(x, y)
    if sys.argv[1] == "all": compare_features(x, y)
    print(f"{peak_mib():.0f}")
    sys.exit()

x, y = features()
a, b = torch.from_numpy(x), torch.from_numpy(y)
theirs = dict(
    fid=lambda: fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), False),
    kid=lambda: kid_features_to_metric(a, b, kid_subsets=100, kid_subset_size=1000, verbose=False),
    prdc=lambda: prc_features_to_metric(a, b, verbose=False))
print(f"{N:,} against {N:,} features of {DIM} dimensions, {torch.get_num_threads()} threads")
print("torch-fidelity's line for prdc is precision and recall alone, that for kid 100 subsets of 1,000")
def best_of_3(call): return min(seconds(call) for _ in range(3))
for name, ours in (("fid", fid), ("kid", kid), ("prdc", prdc)):
    print(f"{name:5s} medgan {best_of_3(lambda: ours(x, y)):6.2f} s, torch-fidelity {best_of_3(theirs[name]):6.2f} s")
print(f"all with intervals from 20 deals {seconds(lambda: compare_features(x, y)):.1f} s")
idle = subprocess.run([sys.executable, __file__, "nothing"], capture_output=True, text=True, check=True)
for what in ("prdc", "all"):
    done = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True, check=True)
    print(f"peak memory of the process, {what}: {done.stdout.strip()} MiB, "
          f"{idle.stdout.strip()} MiB of it the libraries and the features")
skin = load_extractor("skin")
sets = [load_data("phantom", size=64, n=N, phantom_seed=s) for s in (0, 1)]
took = seconds(lambda: [image_features(d, skin, keep=False) for d in sets])
print(f"features of 2 x {N:,} images at 64 px: {took:.1f} s")
