"A generator that does what its map says scores 1, one that does not is found out, and what cannot be judged is refused."
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medgan.data.registry import DataError
from medgan.evaluate.obedience import border_profile, checkerboard, place_response, tone_and_lesion, tone_response

def asked(n=12, size=32):
    "Maps as a table: n of them, each with six skin types; one box each, of all sizes."
    i = np.arange(6*n)
    return pd.DataFrame(dict(skin_type=1 + i % 6, map=i//6, boxes=[((4 + k % 5, 5, 14 + k % 7, 20),) for k in i]))

def painted(maps, size=32):
    "Images that obey their maps perfectly: six tones of skin, a lesion that fills its boxes and darkens with the skin."
    images = np.empty((len(maps), size, size, 3), np.uint8)
    for image, t, given in zip(images, maps.skin_type, maps.boxes):
        skin = np.array([235, 200, 175]) - 26*(t - 1)
        image[:] = skin
        for x0, y0, x1, y1 in given: image[y0:y1, x0:x1] = skin//2
    return images

def filled(maps, size=32):
    "Masks that fill the boxes."
    masks = np.zeros((len(maps), size, size), bool)
    for mask, given in zip(masks, maps.boxes):
        for x0, y0, x1, y1 in given: mask[y0:y1, x0:x1] = True
    return masks

def test_tone_of_a_perfect_generator():
    "Catches a sign mixed up: a generator that does what it is told scores 1."
    maps = asked()
    real = pd.DataFrame(dict(skin_type=range(1, 7), ita=[50., 40, 30, 20, 10, 0]))
    tone = tone_response(maps, tone_and_lesion(painted(maps), maps.boxes), real).value
    assert tone["tone, rank correlation"] > .99 and tone["lesion darkens with the skin"] > .99

def test_tone_the_wrong_way_round():
    "Catches a measure that rewards any dependence on the map: the lightest skin where the darkest was asked for."
    maps = asked()
    tones = tone_and_lesion(painted(maps.assign(skin_type=7 - maps.skin_type)), maps.boxes)
    assert tone_response(maps, tones, tones.assign(skin_type=maps.skin_type)).value["tone, rank correlation"] < -.99

def test_place_of_a_perfect_generator():
    "Catches an axis mixed up, and a size that is taken for a place."
    maps = asked()
    assert place_response(maps, filled(maps)).value.tolist() == pytest.approx([1, 1, 1])
    shifted = place_response(maps, np.roll(filled(maps), 8, 2)).value
    assert shifted["box IoU, median"] < .5 and shifted["area, rank correlation"] == pytest.approx(1)
    every_other = (np.arange(len(maps)) % 2 == 0)[:, None, None]
    assert place_response(maps, filled(maps) & every_other).value["lesion found"] == .5

def test_intervals_are_over_maps():
    "Catches a bootstrap that counts the six images of a map as six maps: its interval would be too narrow."
    maps = asked(8)
    masks = filled(maps) & (np.arange(8) % 2 == 0).repeat(6)[:, None, None]            # half of the maps find nothing, in all six images
    by_map, by_image = (place_response(maps, masks, groups).loc["lesion found"] for groups in (maps["map"], None))
    assert by_map.high - by_map.low > 2*(by_image.high - by_image.low)

def test_responses_refuse():
    "Catches a judgement of maps that cannot be judged."
    table = pd.DataFrame(dict(boxes=[((0, 0, 4, 4), (8, 8, 12, 12))]*4))
    with pytest.raises(DataError, match="0 maps with a single box"): place_response(table, np.zeros((4, 32, 32), bool))
    whole = pd.DataFrame(dict(boxes=[((0, 0, 32, 32),)]*6, skin_type=range(1, 7), map=0))
    tones = tone_and_lesion(painted(whole), whole.boxes)
    with pytest.raises(DataError, match="no image shows skin outside its boxes"):
        tone_response(whole, tones, pd.DataFrame(dict(skin_type=[1], ita=[1.])))

def test_border_profile_sees_each_side():
    "Catches a profile that looks at two sides of a box only, or at the wrong one."
    for side in (np.s_[0, 8:24, 8:10], np.s_[0, 8:24, 22:24], np.s_[0, 8:10, 8:24], np.s_[0, 22:24, 8:24]):
        image = np.full((1, 32, 32, 3), 200, np.uint8)
        image[side] = 80
        expected = [0.]*5 + [37.5, 0, 30] + [0.]*3          # a bar along one of four sides: 120/4; at 0 also its two ends of 2 px
        assert border_profile(image, [[(8, 8, 24, 24)]]).tolist() == expected

def test_transposed_convolutions_leave_a_grid():
    "Catches a measure that does not see the checkerboard, or sees one along one axis only."
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.randn(8, 3, 4, 4), size=32, mode="bicubic")
    with torch.no_grad():
        grid = nn.ConvTranspose2d(3, 3, 4, 2, 1)(smooth)
        even = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1))(smooth)
    assert checkerboard(grid).mean() > 2*checkerboard(even).mean()
    assert torch.allclose(checkerboard(grid), checkerboard(grid.transpose(2, 3)))
