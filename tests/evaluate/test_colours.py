"Colours that are moved are found to be that far away, the skin is not the lesion, and the circle of hues has no end."
import numpy as np
import pandas as pd
import pytest
import torch

from medgan.core.colour import lab_to_rgb
from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.evaluate.colours import LEAK, area_colours, colour_distance, colour_gaps, colour_leak, skin_colours
from medgan.evaluate.metrics import MetricError

def cloud(n=500, seed=0):
    "Colours like skin's."
    return np.random.default_rng(seed).normal([60, 15, 20], [12, 4, 6], (n, 3))

def plain(colours, size=16):
    "An image of one colour for each row in CIELAB."
    return np.rint(255*lab_to_rgb(colours)).astype(np.uint8)[:, None, None].repeat(size, 1).repeat(size, 2)

@pytest.mark.parametrize("c", [(3, 0, 0), (0, -4, 0), (0, 0, 5), (1, -2, 2), (-6, 3, 2)])
def test_a_shift_is_its_length(c):
    "Catches axes that are not spread evenly, and a missing factor of 3."
    assert colour_distance(cloud() + c, cloud()) == pytest.approx(np.linalg.norm(c))

def test_distance_of_sets_of_different_size():
    "Catches sorted values that are compared one by one although the sets have different numbers of them."
    assert colour_distance(np.repeat(cloud(), 3, 0), cloud()) < .15
    assert colour_distance(cloud(5000, 1)[:3000], cloud(5000, 1)) < .5

def test_areas_are_in_their_place():
    "Catches height and width exchanged, and colours of pixels in place of areas."
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :2, 2:4] = 255                                                         # the second area of the first row
    bright = area_colours(image)[0, :, 0]
    assert bright.argmax() == 1 and bright[1] == pytest.approx(100) and np.delete(bright, 1).max() == 0

def test_gaps_of_a_tint():
    "Catches a colour of the images that is not compared, an interval that misses its value, and a distance below 0."
    real, made = plain(cloud(200)), plain(cloud(200, 1) + [0, 0, 6])
    gaps = colour_gaps(made, real, 5)
    assert list(gaps.index) == ["areas", "whole images", "skin's hue"]
    assert gaps.value[["areas", "whole images"]].tolist() == pytest.approx([6, 6], abs=1.8)
    assert (gaps.low >= 0).all() and ((gaps.low <= gaps.value) & (gaps.value <= gaps.high)).all()
    assert colour_gaps(made, real, 0).value.to_numpy() == pytest.approx(gaps.value.to_numpy())

def test_groups_widen_the_interval():
    "Catches deals that part the images of a lesion: ten images of each say no more than one."
    colours = cloud(40, 2).repeat(10, 0)
    made = plain(cloud(400, 3) + [20, 0, 0])
    def width(groups):
        gaps = colour_gaps(made, as_image_data(plain(colours), groups=groups), 20)
        return (gaps.high - gaps.low)["whole images"]
    assert width(np.arange(40).repeat(10).astype(str)) > 1.7*width(np.arange(400).astype(str))

def test_gaps_that_cannot_be_had():
    "Catches a hue of grey images or of frames, and a message that does not say which set is wrong."
    grey = np.random.default_rng(0).integers(0, 255, (60, 16, 16, 1), np.uint8)
    assert colour_gaps(grey, grey, 2).loc["skin's hue"].isna().all() and colour_gaps(grey, grey, 2).value["areas"] == 0
    assert colour_gaps(np.zeros((30, 16, 16, 3), np.uint8), plain(cloud(30)), 2).loc["skin's hue"].isna().all()
    with pytest.raises(MetricError, match="real: 9 images; at least 24"): colour_gaps(plain(cloud(30)), plain(cloud(9)))
    with pytest.raises(DataError, match="sizes or channels differ"): colour_gaps(grey, plain(cloud(30)))

# the skin around a lesion

def test_colour_of_skin_is_not_that_of_the_lesion():
    "Catches a lesion or a dark frame that is taken for skin."
    images = np.full((3, 32, 32, 3), (200, 160, 140), np.uint8)
    images[1, 8:24, 8:24] = (40, 20, 200)                                        # a lesion in violet
    images[2, :, :3] = images[2, :, -3:] = 0                                     # a frame on two sides
    table = skin_colours(images)
    assert table.round(6).drop_duplicates().shape[0] == 1 and 30 < table.hue[0] < 80
    as_floats = skin_colours(torch.tensor(images/127.5 - 1).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(as_floats, table, atol=.5)

def test_leak_knows_the_circle():
    "Catches hues of 179 and -179 degrees taken for opposite ones, and a distance that depends on the order of images."
    rng = np.random.default_rng(0)
    def skin(hue, n=300):
        hues = (hue + rng.normal(0, 3, n) + 180) % 360 - 180
        return pd.DataFrame(dict(hue=hues, chroma=rng.normal(20, 2, n), ita=rng.normal(30, 5, n)))
    near, far = (colour_leak(skin(180), skin(h), 5) for h in (178, 120))
    assert near.value["hue"] < 4 and near.value["odd"] < .1 and 55 < far.value["hue"] < 65 and far.value["odd"] == 1
    generated, real = skin(10), skin(15)
    assert colour_leak(generated.iloc[::-1], real, 5).value.round(9).equals(colour_leak(generated, real, 5).value.round(9))
    assert list(near.index) == [*LEAK] and (near.low <= near.value).all() and (near.value <= near.high).all() and (near.low >= 0).all()

def test_leak_needs_skin():
    "Catches a distance from a handful of images, or from frames."
    table = skin_colours(np.zeros((40, 16, 16, 3), np.uint8))
    assert table.isna().to_numpy().all()
    with pytest.raises(ValueError, match="0 generated and 0 real images show skin"): colour_leak(table, table)
