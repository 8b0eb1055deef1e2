"The metrics against their authors' code, intervals against the truth, and features that cannot be compared."
import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from medgan.evaluate import metrics
from medgan.evaluate.metrics import (
    MetricError,
    compare_features,
    coverage_by_class,
    fid,
    half_splits,
    interval_cover,
    kid,
    prdc,
)

def pair(n, m, dim, dtype, seed=0):
    "Features that differ, some of the real ones copied into the generated ones."
    rng = np.random.default_rng(seed)
    x, y = rng.normal(.1, 1.1, (n, dim)).astype(dtype), rng.normal(size=(m, dim)).astype(dtype)
    x[:20] = y[:20]
    return x, y

SHAPES = pytest.mark.parametrize("n,m,dim,dtype", [
    (400, 300, 16, "f8"), (1500, 2100, 32, "f8"), (1200, 800, 64, "f4"), (300, 300, 192, "f4")])

@SHAPES
def test_equals_torch_fidelity(n, m, dim, dtype):
    "Catches a wrong neighbour (k instead of k+1), `<` for `<=`, swapped arguments, a biased estimate, another covariance."
    x, y = pair(n, m, dim, dtype)
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    theirs = prc_features_to_metric(a, b, verbose=False)
    ours = prdc(x, y)
    for name, counted in dict(precision=n, recall=m).items():
        assert round(ours[name]*counted) == round(theirs[name]*counted) and abs(ours[name] - theirs[name]) < 1e-7
    expected = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), False)
    assert fid(x, y) == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    l = min(n, m)                                                # torch-fidelity's KID wants equally many
    theirs = kid_features_to_metric(a[:l].double(), b[:l].double(), kid_subsets=1, kid_subset_size=l, verbose=False)
    expected = theirs["kernel_inception_distance_mean"]
    assert kid(x[:l].astype("f8"), y[:l].astype("f8")) == pytest.approx(expected, rel=1e-6)
    assert kid(x[:l], y[:l]) == pytest.approx(expected, rel=1e-5)                                       # in single precision

@SHAPES
def test_equals_prdc(n, m, dim, dtype):
    "Catches `<=` for `<`, a division by the wrong n or k, and the order of prdc's arguments: it takes the real ones first."
    x, y = pair(n, m, dim, "f8")
    theirs, ours = compute_prdc(real_features=y, fake_features=x, nearest_k=5), prdc(x, y)
    for name in ("density", "coverage"): assert ours[name] == pytest.approx(theirs[name], abs=1e-12)

def test_halves_as_if_alone():
    "Catches a tile that is left out, counted twice or put to other rows, and neighbours of the whole set instead of the half."
    x, y = pair(2100, 4200, 8, "f8")                                  # tiles are of 1,024 and 2,048 images
    px, py = half_splits(len(x), 2, seed=0), half_splits(len(y), 2, seed=1)
    together = metrics._prdc_parts(x, y, px, py) | dict(kid=metrics._kid_parts(x, y, px, py))
    for p, (a, b) in enumerate(zip(px, py)):
        alone = prdc(x[a], y[b]) | dict(kid=kid(x[a], y[b]))
        assert {name: values[p] for name, values in together.items()} == pytest.approx(alone, abs=1e-12)

def test_coverage_of_one_class():
    "Catches distances that are compared with squared ones, and the nearest image of the last tile alone."
    x, y = pair(2100, 4200, 16, "f4")
    assert coverage_by_class(x, y, ["one"]*len(y)).value["one"] == prdc(x, y)["coverage"]

def test_kid_is_the_mean_over_subsets():
    "Catches an estimate that is not torch-fidelity's usual one on average (100 subsets)."
    x, y = pair(2000, 2000, 8, "f8")
    pair_of_tensors = torch.from_numpy(x), torch.from_numpy(y)
    theirs = kid_features_to_metric(*pair_of_tensors, kid_subsets=100, kid_subset_size=500, verbose=False)
    error = theirs["kernel_inception_distance_std"]/np.sqrt(100)*3
    assert abs(kid(x, y) - theirs["kernel_inception_distance_mean"]) < error

def test_argument_order():
    "Catches real and generated swapped anywhere: a collapsed generator is precise and recalls nothing."
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 6))
    collapsed = real[:1] + .2*rng.normal(size=(300, 6))
    table = compare_features(collapsed, real).value
    assert table.precision > .9 and table.recall < .2 and table.coverage < .2 and table.density > 1

def test_intervals_cover():
    "Catches a wrong factor in the halves' variance (1/4), and a t quantile of other degrees of freedom."
    cover = interval_cover(500, level=.9, n=200, dim=6).cover
    assert cover.between(.87, .93).all(), cover

def test_groups_widen_the_interval():
    "Catches groups that are dealt apart: eight images of each lesion know as much as one."
    rng = np.random.default_rng(0)
    lesion = np.repeat(np.arange(60), 8)
    real = rng.normal(size=(60, 4))[lesion] + .1*rng.normal(size=(480, 4))
    generated = rng.normal(.4, 1, size=(480, 4))
    def width(groups):
        fid_row = compare_features(generated, real, groups).loc["fid"]
        return fid_row.high - fid_row.low
    assert width(lesion) > 1.5*width(None)

@pytest.mark.parametrize("x,message", [
    (np.zeros((30, 4)), "4 \\(generated\\) and 3 \\(real\\)"), (np.full((30, 3), np.nan), "NaN"),
    (np.zeros((5, 3)), "5 images, this metric needs at least"),
    (np.zeros(30), "floats \\(N,dim\\)"), (np.zeros((30, 3), int), "floats \\(N,dim\\)")])
def test_bad_features(x, message):
    with pytest.raises(MetricError, match=message): compare_features(x, np.random.default_rng(0).normal(size=(30, 3)))
