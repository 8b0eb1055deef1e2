"Planted copies, wrong classes and a single image are found by the facts that are made for them, and by no others."
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.data.splits import group_codes
from medgan.evaluate.image_statistics import (
    SCALES,
    beyond_floor,
    class_consistency,
    class_diversity,
    distances_at_scales,
    facts,
    nearest_ratio,
    planted_faults,
)
from medgan.evaluate.metrics import MetricError
from medgan.evaluate.spectra import gaussian_blurred

class Brightness(nn.Module):
    "Calls an image the darker of two classes, or the brighter one."
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[-100., 100.]]))

    def forward(self, x): return x.mean((1, 2, 3))[:, None]*self.weight

def textured(n, size=32, seed=0, **about):
    "Images of coarse and fine noise; class by brightness, dark and bright."
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    coarse = gaussian_filter(rng.normal(0, 400, (n, size, size, 1)), (0, 5, 5, 0), mode="reflect") + [30, 0, -25]
    pixels = coarse + rng.normal(0, 6, (n, size, size, 3)) + np.where(labels, 150, 105)[:, None, None, None]
    return as_image_data(pixels.round().clip(0, 255).astype(np.uint8), labels=labels, classes=["dark", "bright"], **about)

@pytest.fixture(scope="module")
def parts():
    "Training images, held-out ones and ones that play the generator."
    return [textured(80, seed=seed, name=name) for seed, name in enumerate(("training", "held out", "pool"))]

@pytest.fixture(scope="module")
def found(parts):
    "Facts of the planted faults."
    training, held_out, pool = parts
    return {name: facts(data, training, held_out, Brightness()) for name, data in planted_faults(pool, training).items()}

# the nearest real image

def test_copies_are_at_zero(parts):
    "Catches a distance that rounding keeps from 0, a scale whose pieces are cut elsewhere, and sides exchanged."
    training, held_out, _ = parts
    copies = distances_at_scales(training.subset(np.arange(5, 15)), training, held_out)
    assert list(copies.columns) == [(s, side) for s in SCALES for side in ("training", "held out")]
    assert (copies.xs("training", axis=1, level=1) == 0).all(axis=None) and (copies.xs("held out", axis=1, level=1) > 1).all(axis=None)

def test_an_image_is_not_its_own_neighbour(parts):
    "Catches held-out images that are compared with themselves, or with another image of their lesion."
    training, held_out, _ = parts
    twice = as_image_data(held_out.images.repeat(2, 0), groups=np.arange(80).repeat(2).astype(str))
    assert (distances_at_scales(twice, training, twice) > 0).all(axis=None)

def test_distance_is_in_grey_levels(parts):
    "Catches a sum in place of a mean, and a patch that keeps its brightness."
    training = parts[0]
    brighter = np.full((30, 32, 32, 3), 100, np.uint8)
    distance = distances_at_scales(brighter + 7, brighter, training)
    assert distance.xs("training", axis=1, level=1).iloc[0].tolist() == pytest.approx([7, 7, 0], abs=1e-4)

def test_parts_of_training_images_are_found():
    "Catches a scale that sees only wholes: images put together from the quarters of different training images."
    training, held_out = textured(60, 32, 3), textured(60, 32, 4)
    pixels = training.images.copy()
    pixels[:, :16], pixels[:, 16:] = training.images[np.arange(60) - 1, :16], training.images[:, 16:]
    ratio = nearest_ratio(distances_at_scales(pixels, training, held_out)).value
    assert ratio["whole"] > .6 and ratio["quarters"] < .45 and ratio["patches"] < .05

def test_ratio_of_known_distances():
    "Catches the inverse ratio, a mean of ratios that one image decides, and 0/0."
    def table(a, b): return pd.DataFrame({(s, side): d for s in SCALES for side, d in (("training", a), ("held out", b))})
    assert nearest_ratio(table([1., 2, 3], [2., 4, 6])).value.tolist() == pytest.approx([.5]*3)
    assert nearest_ratio(table([0., 4], [3., 1])).value.tolist() == pytest.approx([1]*3)
    assert nearest_ratio(table([0., 0], [0., 0])).value.tolist() == pytest.approx([1]*3)
    rows = nearest_ratio(table(np.linspace(1, 2, 40), np.full(40, 1.5)))
    assert ((rows.low < rows.value) & (rows.value < rows.high)).all()

def test_more_training_images_are_no_nearer():
    "Catches a search among more training than held-out images: blurred images would be nearer to the larger side."
    training, held_out, pool = textured(240, seed=5), textured(80, seed=6), textured(60, seed=7)
    for images in (pool, gaussian_blurred(pool, 1.5)):
        assert nearest_ratio(distances_at_scales(images, training, held_out)).value.tolist() == pytest.approx([1]*3, abs=.05)
    copies = nearest_ratio(distances_at_scales(training, training, held_out)).value         # each image is in one block of three
    assert copies["whole"] == pytest.approx(2/3, abs=.05)

@pytest.mark.parametrize("n_training, n_held_out", [(240, 80), (100, 80), (85, 80), (40, 80), (81, 27)])
def test_every_training_image_has_its_block(n_training, n_held_out):
    "Catches training images that are never looked at, so that their copies are not found."
    training, held_out = textured(n_training, 16, 8), textured(n_held_out, 16, 9)
    to_training = distances_at_scales(training, training, held_out)["whole", "training"]
    to_others = distances_at_scales(textured(n_training, 16, 10), training, held_out)["whole", "training"]
    assert (to_training < to_others.median()).mean() > .9

def test_training_and_held_out_apart(parts):
    "Catches a floor of images that were trained on, and the sets of other sizes."
    training, held_out, pool = parts
    with pytest.raises(MetricError, match="are in training and in held_out, such as"): distances_at_scales(pool, training, training)
    with pytest.raises(DataError, match="sizes or channels differ"): distances_at_scales(pool.images[:, :8, :8], training, held_out)

# classes

def test_consistency_is_balanced():
    "Catches accuracy in place of the mean over classes, and a class without images that counts as 0."
    data = as_image_data(textured(40).images[np.r_[:4:2, 1:40:2]], labels=[1]*2 + [1]*20, classes=["dark", "bright"])
    table = class_consistency(Brightness(), data)
    assert list(table.index) == ["bright", "balanced"] and table.value["bright"] == pytest.approx(20/22)
    asked = textured(40).subset(np.r_[:4:2, 1:40:2])
    swapped = as_image_data(asked.images[asked.rows], labels=[1, 0] + [1]*20, classes=["dark", "bright"])
    assert class_consistency(Brightness(), swapped).value["balanced"] == pytest.approx((1 + 20/21)/2)
    assert class_consistency(Brightness(), swapped).loc["balanced", ["n", "k"]].tolist() == [22, 21]

def test_classifier_must_not_know_the_images(parts):
    "Catches a consistency of images that trained the classifier, and one that knows other classes."
    net = Brightness()
    net.seen = group_codes(parts[0].table.group)
    with pytest.raises(MetricError, match="100.0% of the images trained the classifier"): class_consistency(net, parts[0])
    three = as_image_data(parts[0].images, labels=[0]*80, classes=["a", "b", "c"])
    with pytest.raises(MetricError, match="knows 2 classes, images has 3: a, b, c"): class_consistency(Brightness(), three)

# diversity

def test_diversity_is_within_classes(parts):
    "Catches a collapse to one image a class that the distance between classes hides."
    training, _, pool = parts
    two = as_image_data(pool.images[np.arange(80) % 2], labels=np.arange(80) % 2, classes=pool.classes)
    table = class_diversity(two, training)
    assert table.value.tolist() == [0, 0, 0] and table.n.tolist() == [40, 40, 80]
    assert class_diversity(pool, training).value["mean"] == pytest.approx(1, abs=.1)

def test_diversity_in_given_features(parts):
    "Catches features that are not used, or are those of the other set."
    x = np.random.default_rng(0).normal(size=(80, 4))
    assert class_diversity(parts[2], parts[0], (x*2, x), n_splits=0).value.tolist() == pytest.approx([2, 2, 2])

def test_diversity_without_classes(parts):
    "Catches images without classes that belong to no class, and classes too small to be compared."
    plain = [as_image_data(data.images) for data in parts]
    assert list(class_diversity(plain[2], plain[0]).index) == ["all", "mean"]
    assert list(class_diversity(plain[2], parts[0]).index) == ["all", "mean"]
    with pytest.raises(MetricError, match="of no class both sets have 8 images"): class_diversity(parts[2].subset([0, 1]), parts[0])

# all facts

KINDS = dict(spectrum=slice(0, 3), colours=slice(3, 6), copies=slice(6, 9), classes=slice(9, 10), diversity=slice(10, 11))

@pytest.mark.parametrize("fault, kind", [("blurred, 1 px", "spectrum"), ("lattice of 4", "spectrum"), ("tinted", "colours"),
                                         ("copies", "copies"), ("classes mixed", "classes"), ("one image", "diversity")])
def test_each_fault_is_seen(found, fault, kind):
    "Catches a fact that is blind to what it is made for, and one that sees another's fault."
    seen = beyond_floor(found[fault])
    seen.iloc[KINDS["colours"]] = seen.iloc[KINDS["colours"]].clip(lower=0)         # nearer than real ones are is no fault
    assert seen.iloc[KINDS[kind]].abs().max() > 2.5
    others = seen.drop(seen.index[KINDS[kind]])
    if fault == "classes mixed": others = others.drop("diversity within a class")   # it grows: a class has images of both
    if fault != "one image": assert others.drop("class as asked", errors="ignore").abs().max() < 2

def test_a_set_without_fault(found):
    "Catches a floor from other images than the value's: real against real is at the floor."
    table = found["none"]
    assert beyond_floor(table).abs().max() < 2
    assert list(table.columns) == ["value", "low", "high", "floor", "floor_low", "floor_high", "n"] and (table.n == 80).all()

def test_equally_many_are_compared(parts):
    "Catches a floor of fewer images than the value's, and rows in another order with a seed that is not used."
    training, held_out, pool = parts
    few = facts(pool, training, held_out.subset(np.arange(40)))
    assert (few.n == 40).all() and "class as asked" not in few.index
    assert facts(pool, training, held_out.subset(np.arange(40))).equals(few)

def test_grey_images():
    "Catches a fact that needs colours, and one that is made up where it cannot be had."
    grey = [as_image_data(textured(40, seed=i).images[..., :1]) for i in range(3)]
    table = facts(*grey)
    assert table.value.isna().sum() == 1 and np.isnan(table.value["skin's hue, °"])
    assert np.isnan(beyond_floor(table)["skin's hue, °"])

def test_what_facts_refuse(parts):
    "Catches too few images, classes that nobody asked for, and sets that are not apart."
    training, held_out, pool = parts
    with pytest.raises(MetricError, match="held_out: 5 images; at least 24"): facts(pool, training, held_out.subset(np.arange(5)))
    with pytest.raises(MetricError, match="leave the classifier out"): facts(pool.images, training, held_out, Brightness())
    with pytest.raises(MetricError, match="split by group"): facts(pool, held_out, held_out)
