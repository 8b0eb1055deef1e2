"Colours at the ends of their range, in every form in which images come."
import numpy as np
import pytest

from medgan.core.colour import TONES, fitzpatrick, ita, lab_to_linear, lab_to_rgb, linear_to_srgb, rgb_to_lab

@pytest.mark.parametrize("rgb, lab", [  # computed by hand from IEC 61966-2-1 and CIE 15, as printed in many tables
    ((1., 0, 0), (53.24, 80.09, 67.20)), ((0, 1., 0), (87.73, -86.18, 83.18)), ((0, 0, 1.), (32.30, 79.19, -107.86)),
    ((1., 1, 0), (97.14, -21.55, 94.48)), ((0, 0, 0), (0, 0, 0)), ((1, 1, 1), (100, 0, 0)),
])
def test_published_values(rgb, lab):
    "Catches a transposed matrix, another white point and a wrong exponent."
    assert rgb_to_lab(np.array(rgb, float)) == pytest.approx(np.array(lab), abs=.02)
    assert lab_to_rgb(np.array(lab, float)) == pytest.approx(np.array(rgb), abs=2e-3)

def test_bytes_and_floats_agree():
    "Catches bytes taken for floats: white would be 255 times too light."
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert rgb_to_lab(colours) == pytest.approx(rgb_to_lab(colours/255))
    assert ita(colours).shape == (6, 5)

def test_greys_have_no_colour():
    "Catches a white point that is not sRGB's own: grey would get a tint of hundredths."
    grey = np.linspace(0, 1, 256)[:, None].repeat(3, 1)
    lab = rgb_to_lab(grey)
    assert abs(lab[:, 1:]).max() < 1e-9
    assert (np.diff(lab[:, 0]) > 0).all()

def test_outside_of_the_screen():
    "Catches colours that no screen has coming out beyond [0,1] or as NaN."
    rgb = lab_to_rgb(np.array([[100, 100, 100], [0, -100, -100], [50, 200, -200], [-5, 0, 0]]))
    assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1

def test_both_branches_meet():
    "Catches a jump between the linear and the curved part, in sRGB and in CIELAB."
    x = np.array([.0031308 - 1e-9, .0031308 + 1e-9])
    assert np.ptp(linear_to_srgb(x)) < 1e-6
    dark = np.ptp(np.array(lab_to_linear(np.array([8 - 1e-9, 8 + 1e-9]), np.zeros(2), np.zeros(2))), axis=1)
    assert dark.max() < 1e-6

def test_types_of_skin():
    "Catches a limit on the wrong side, and tones that are drawn as another type's."
    assert fitzpatrick(90) == 1 and fitzpatrick(-90) == 6
    assert all((fitzpatrick(np.linspace(*TONES[:, i], 50)) == i + 1).all() for i in range(6))
    assert fitzpatrick(np.zeros((2, 3))).shape == (2, 3)
