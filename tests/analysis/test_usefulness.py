"Training sets compared: what is kept apart, what is kept, and tests that can fail."
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medgan.analysis.usefulness import SCORES, LiteClassifier, added, compare_rows, fit_rows, scores_by_training
from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.evaluate.classifiers import classifier_scores

def images_of(counts, seed, name, classes=("benign", "malignant")):
    "Two classes that differ in brightness."
    labels = np.repeat([0, 1], counts)
    pixels = np.random.default_rng(seed).normal(90, 20, (len(labels), 16, 16, 3)) + 70*labels[:, None, None, None]
    return as_image_data(pixels.clip(0, 255).astype(np.uint8), labels=labels, classes=list(classes), name=name)

class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(1, 2)
    def forward(self, x): return self.scale(x.mean((1, 2, 3))[:, None]*5)

COUNTS = dict(real=[20, 5], drawn=[30, 30], val=[9, 9], test=[30, 30])
REAL, DRAWN, VAL, TEST = (images_of(counts, i, name) for i, (name, counts) in enumerate(COUNTS.items()))
QUICK = dict(epochs=4, patience=4, lr=.1, batch_size=5)

def test_only_the_class_is_added():
    "Catches drawn images of other classes that come along, and real ones that are lost."
    more = added(REAL, DRAWN, "malignant")
    assert more.table.dx.value_counts().to_dict() == dict(benign=20, malignant=20)
    assert (more.read(range(25))["image"] == REAL.read(range(25))["image"]).all()

def test_views_only_in_training():
    "Catches a classifier that turns test images at random."
    net = LiteClassifier(2, weights="random")
    x = torch.rand(2, 3, 32, 32)*2 - 1
    assert torch.equal(net.eval()(x), net(x)) and not torch.equal(net.train().embed(x), net.embed(x))

def test_what_is_kept_is_read(tmp_path):
    "Catches a second call that trains again, and one whose probabilities differ."
    first = fit_rows(dict(real=REAL), VAL, dict(test=TEST), Bright, (0, 1), folder=tmp_path, **QUICK)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    second = fit_rows(dict(real=REAL), VAL, dict(test=TEST), Bright, (0, 1), folder=tmp_path, **QUICK)
    pd.testing.assert_frame_equal(first, second)
    assert len(before) == 2 and {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before

def test_seeds_are_trainings():
    "Catches seeds that all start from the same weights, and rows that start from different ones."
    found = fit_rows(dict(a=REAL, b=REAL), VAL, dict(test=TEST), Bright, (0, 1), **QUICK)
    found = found.pivot(index="image", columns=["row", "seed"], values="p")
    assert not np.allclose(found["a"][0], found["a"][1]) and np.allclose(found["a"], found["b"])

@pytest.mark.parametrize("error, said, change", [
    (DataError, "are in the validation or test parts", dict(rows=dict(real=VAL))),
    (DataError, "has the classes a, b", dict(rows=dict(other=images_of([5, 5], 9, "o", ("a", "b"))))),
    (ParameterError, "balance names gone", dict(balance=dict(gone="weights")))])
def test_bad_input(error, said, change):
    "Catches a training set with lesions of the test part, and other classes in the same places."
    options = dict(rows=dict(real=REAL), val=VAL, tests=dict(test=TEST), build=Bright) | change
    with pytest.raises(error, match=said): fit_rows(**options)

def predictions(shift, n_seeds=4):
    "Of two rows; the second is better by a shift of its logit, the same for all seeds and a little more."
    label = np.repeat([0, 1], 60)
    parts = []
    for seed in range(n_seeds):
        noise = np.random.default_rng(seed).normal(0, 1.5, 120)
        for row, gain in (("real", 1.), ("more", 1. + shift + .05*seed)):
            p = 1/(1 + np.exp(-((2*label - 1)*gain + noise)))
            parts.append(pd.DataFrame(dict(row=row, seed=seed, test="t", image=np.arange(120), group=np.arange(120)//2, label=label, p=p)))
    return pd.concat(parts, ignore_index=True)

def test_comparison_can_fail():
    "Catches a sign the wrong way round, and a difference that is found where there is none."
    better = compare_rows(predictions(1.5), "real", "auc", n_resamples=300).loc[("t", "more")]
    assert better.low > 0 and better.of_images_low > 0 and better.p < .05
    worse = compare_rows(predictions(1.5), "more", "auc", n_resamples=300).loc[("t", "real")]
    assert worse.difference == pytest.approx(-better.difference)
    alike = compare_rows(predictions(-.075), "real", "auc", n_resamples=300).loc[("t", "more")]
    assert alike.low < 0 < alike.high and alike.of_images_low <= 0 <= alike.of_images_high
    with pytest.raises(ParameterError, match="one seed"): compare_rows(predictions(1., 1), "real")
    assert len(scores_by_training(predictions(1.))) == 8

@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_projects(score):
    "Catches a quick score that is another than that of all classifiers here."
    y, p = np.random.default_rng(0).integers(0, 2, 200), np.random.default_rng(1).random(200).round(2)
    assert SCORES[score](y, p) == pytest.approx(classifier_scores(np.stack([1 - p, p], 1), y)[score])
