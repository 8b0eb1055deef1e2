"Spoilt sets are what they say; the study compares each of them with the same untouched one, and refuses what it cannot run."
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan.analysis.metric_study import (
    CORRUPTIONS,
    METRICS,
    MetricStudy,
    corrupt,
    matched_blur_table,
    pixel_extractor,
    plot_levels,
    plot_study,
    random_extractor,
    study_table,
)
from medgan.core.checks import ParameterError
from medgan.data.images import load_data
from medgan.evaluate.spectra import gaussian_blurred
from medgan.training.parameters import parameters_cell

NOTEBOOK = Path(__file__).parents[2]/"nbs"/"analysis"/"01_metric_study.ipynb"

@pytest.fixture(scope="module")
def parts(): return load_data("phantom", size=16, n=500).split(dict(real=.5, pool=.5), seed=1)

@pytest.fixture(scope="module")
def study(parts): return study_table(parts["pool"], parts["real"], [pixel_extractor(4)], [0., .5, 1.], n_splits=2)

@pytest.mark.parametrize("kind", ["noise", "rare class", "copies", "hue"])
def test_level_0(parts, kind):
    "Catches a level 0 that spoils. (Hue goes through HSV of 8 bits, which rounds; imbalance draws other images.)"
    untouched, same = (corrupt(parts["pool"], k, 0, parts["real"]).images.astype(int) for k in ("blur", kind))
    assert abs(untouched - same).max() <= (3 if kind == "hue" else 0)

@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption(parts, kind):
    "Catches a set of another size, a level or a seed that changes nothing, and a pool that is changed."
    pool, real = parts["pool"], parts["real"]
    before = pool.images.copy()
    untouched, half, whole = (corrupt(pool, kind, level, real) for level in (0, .5, 1))
    assert len(untouched) == len(half) == len(whole) == len(pool)//2
    assert not np.array_equal(untouched.images, half.images) and not np.array_equal(half.images, whole.images)
    assert not np.array_equal(whole.images, corrupt(pool, kind, 1, real, seed=1).images)
    assert np.array_equal(before, pool.images) and whole.classes == pool.classes

def test_labels_follow_their_images(parts):
    "Catches labels of the images that were there before: among the pool's own images each keeps its diagnosis."
    pool = parts["pool"]
    own = {image.tobytes(): dx for image, dx in zip(pool.images[pool.rows], pool.table.dx)}
    for kind in ("imbalance", "rare class"):
        spoilt = corrupt(pool, kind, 1, parts["real"])
        assert [own[image.tobytes()] for image in spoilt.images] == spoilt.table.dx.tolist()

def test_refused_corruption(parts):
    "Catches a level in per cent, and a kind that does nothing."
    with pytest.raises(ParameterError, match="level=50"): corrupt(parts["pool"], "blur", 50, parts["real"])
    with pytest.raises(ParameterError, match="kind='sharp'"): corrupt(parts["pool"], "sharp", 1, parts["real"])

def test_random_extractor():
    "Catches features that depend on what was drawn before, and random numbers of others that are changed."
    torch.manual_seed(5)
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad(): features = random_extractor().net(x)
    after = torch.rand(1)
    torch.manual_seed(5)
    torch.rand(4, 3, 32, 32)
    assert torch.equal(after, torch.rand(1))
    with torch.no_grad(): assert torch.equal(features, random_extractor().net(x)) and features.shape == (4, 192)
    with torch.no_grad(): assert not torch.allclose(features, random_extractor(1).net(x))

def test_study(study):
    "Catches a corruption, level or metric that is missing, and a change against another row than the untouched one."
    assert study.groupby(["kind", "level"]).size().eq(len(METRICS)).all() and len(study) == len(CORRUPTIONS)*3*len(METRICS)
    first = study[study.level == 0]
    assert (first.change == 0).all() and (first.groupby("metric").value.nunique() == 1).all()
    row = study[(study.kind == "noise") & (study.level == 1) & (study.metric == "fid")].iloc[0]
    untouched = first[(first.kind == "noise") & (first.metric == "fid")].iloc[0]
    assert row.change == pytest.approx((row.value - untouched.value)/np.hypot(row.sd, untouched.sd))

def test_matched_blur(parts):
    "Catches a blur of the generated images in place of the real ones, sets of different size, and rows under the wrong name."
    real, (made, held_out) = parts["real"], parts["pool"].split(dict(made=.4, held_out=.6), seed=1).values()
    table = matched_blur_table(gaussian_blurred(made, 1.), held_out, real, [pixel_extractor(16)], 2)
    assert table.groupby("set").sigma.first()["blurred"] == pytest.approx(1, abs=.15)
    density = table[table.metric == "density"].set_index("set").value
    assert density["blurred"] == pytest.approx(density["generated"], rel=.25) and density["held out"] < density["blurred"]/1.1
    assert list(table["set"].unique()) == ["held out", "blurred", "generated"] and table.features.unique().tolist() == ["pixels 16 x 16"]

def test_pictures(study):
    "Catches a panel with the corruptions in another order than its labels, and a level that is left out."
    axes = plot_study(study).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(CORRUPTIONS)
    change = study[(study.level == 1) & (study.kind == CORRUPTIONS[0]) & (study.metric == METRICS[0])].change.iloc[0]
    assert axes[0].texts[0].get_text() == f"{change:.0f}"
    assert all(len(line.get_xdata()) == 3 for ax in plot_levels(study, "pixels 4 x 4").axes for line in ax.lines)

@pytest.mark.parametrize("name", MetricStudy.model_fields)
@pytest.mark.parametrize("value", [-1, 1e12, math.nan, math.inf, 2.5, "a b", [], None])
def test_refused_parameters(name, value):
    "Catches a value that ends in a TypeError, or is only found out after an hour."
    if name == "data_dir" and value == "a b": return                             # a folder may be called so
    with pytest.raises(ParameterError, match=f"{name}="): MetricStudy(**{name: value})

def test_parameters_cell():
    "Catches a notebook whose parameters are not those of its description."
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    tagged, = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    assert "".join(tagged["source"]) == parameters_cell(MetricStudy)
