"Properties of single images: what must not change them, and what must."
import numpy as np
import pytest

from medgan.core.checks import ParameterError
from medgan.evaluate.lesion_properties import (
    FRAME,
    frame_depth,
    hair_share,
    lesion_colour,
    lesion_properties,
    lesion_shape,
)

V, U = np.meshgrid(*[(np.arange(64) - 31.5)/32]*2, indexing="ij")

def skin(value=180):
    "A plain image (1,64,64,3)."
    return np.full((1, 64, 64, 3), value, np.uint8)

def ellipse(u0=0., v0=0., a=.5, b=.25, turn=0.):
    "A mask (1,64,64)."
    u, v = (U - u0)*np.cos(turn) + (V - v0)*np.sin(turn), (V - v0)*np.cos(turn) - (U - u0)*np.sin(turn)
    return ((u/a)**2 + (v/b)**2 < 1)[None]

@pytest.mark.parametrize("corners, is_frame", [(4, True), (3, True), (2, False), (1, False)])
def test_frame_is_in_the_corners(corners, is_frame):
    "Catches a dark lesion that reaches into a corner and counts as a frame."
    image = skin()
    for k, (a, b) in enumerate([(1, 1), (1, -1), (-1, 1), (-1, -1)]):
        if k < corners: image[0][(np.hypot(U, V) > 1.1) & (a*U > 0) & (b*V > 0)] = 10
    assert (frame_depth(image)[0] > FRAME) == is_frame

def test_frame_does_not_depend_on_light():
    "Catches a threshold on brightness: dark skin without a frame is no frame."
    assert abs(frame_depth(skin(40))[0]) < 1 > abs(frame_depth(skin(220))[0])

@pytest.mark.parametrize("turn", [0., .4, 1.2])
def test_asymmetry_is_that_of_the_shape(turn):
    "Catches mirrors at the image's axes in place of the lesion's own, and at the image's centre."
    whole = ellipse(.1, -.15, turn=turn)
    cut = whole & ((U - .1)*np.cos(turn) + (V + .15)*np.sin(turn) > 0)[None]
    assert lesion_shape(whole).asymmetry[0] < .06 and lesion_shape(cut).asymmetry[0] > .12

def test_hair_is_long_thin_and_dark():
    "Catches dots, bright lines and the lesion's own pattern that count as hair."
    lesion = ellipse(a=.3, b=.3)
    def share(draw):
        image = skin()
        draw(image[0])
        return hair_share(image, lesion)[0]
    def line(x): x[10:54, 8:9] = 90
    def bright(x): x[10:54, 8:9] = 250
    def dots(x): x[4::8, 4:12:8] = 90
    def inside(x): x[28:36, 32:33] = 60
    assert share(line) > .005 and max(share(bright), share(dots), share(inside)) == 0

def test_colours_are_of_skin_and_lesion():
    "Catches a lesion whose redness is that of the image, and a tone that a dark lesion changes."
    image, mask = skin(), ellipse()
    image[0][mask[0]] = (180, 90, 90)
    found, plain = lesion_colour(image, mask).iloc[0], lesion_colour(skin(), mask).iloc[0]
    assert found.redness > 20 and abs(plain.redness) < 1 and found.tone == plain.tone

def test_nothing_to_see():
    "Catches an empty mask that ends in an error, or in a number."
    empty = np.zeros((1, 64, 64), bool)
    assert lesion_properties(skin(), empty)[["asymmetry", "redness", "tone"]].isna().all(axis=None)
    assert lesion_shape(empty)["size"][0] == 0 and np.isnan(hair_share(skin(), ~empty)[0])

def test_bad_input():
    "Catches hair that is looked for where a pixel is thicker, and grey images."
    with pytest.raises(ParameterError, match="at least 48 px"): hair_share(skin()[:, :32, :32], np.zeros((1, 32, 32)))
    with pytest.raises(ParameterError, match="must be in colours"): frame_depth(skin()[..., :1])
    assert np.isnan(lesion_properties(skin()[:, :32, :32], ellipse()[:, 16:48, 16:48]).hair[0])
