"White noise is flat, a wave stands where it is, a blur is found to be as wide as it was, and less contrast is no blur."
import numpy as np
import pytest
from matplotlib import pyplot as plt

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data, load_data
from medgan.data.registry import DataError
from medgan.evaluate.metrics import MetricError
from medgan.evaluate.spectra import gaussian_blurred, matching_blur, plot_spectra, radial_spectrum, sharpness

def white(n=60, side=32, channels=1, seed=0):
    "Noise of 20 grey levels about 128."
    return np.random.default_rng(seed).normal(128, 20, (n, side, side, channels)).round().clip(0, 255).astype(np.uint8)

@pytest.fixture(scope="module")
def phantoms():
    "Two sets of different lesions."
    return list(load_data("phantom", size=32, n=500).split(dict(real=.5, other=.5)).values())

@pytest.mark.parametrize("shape", [(64, 64), (32, 64), (48, 32), (33, 33)])
def test_white_noise_is_flat(shape):
    "Catches a window that is not normed, half of the coefficients counted twice, and rings of another width for sides that differ."
    noise = np.random.default_rng(0).normal(128, 20, (150, *shape, 1)).round().clip(0, 255).astype(np.uint8)
    f, power = radial_spectrum(noise)
    assert f[-1] == (min(shape)//2)/min(shape) and len(f) == min(shape)//2 and power.shape == (150, len(f))
    np.testing.assert_allclose(power.mean(0)[2:], 400, rtol=.1)

@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("k", [5, 9, 14])
def test_a_wave_stands_at_its_frequency(axis, k):
    "Catches frequencies of one axis taken for another's, and a ring that is off by one."
    wave = np.rint(100 + 60*np.sin(2*np.pi*k*np.arange(32)/32))*np.ones((32, 1))
    f, power = radial_spectrum((wave if axis else wave.T)[None].astype(np.uint8))
    assert f[power[0].argmax()] == k/32

def test_colours_are_seen_by_their_brightness():
    "Catches channels that are averaged, or the last one alone."
    noise = white(100, channels=3)
    weights = .299**2 + .587**2 + .114**2
    assert radial_spectrum(noise)[1][:, 3:].mean() == pytest.approx(400*weights, rel=.05)

def test_blocks_and_subsets():
    "Catches a last block that is lost, and rows of a subset that are those of the whole set."
    data = as_image_data(white(10))
    whole = radial_spectrum(data)[1]
    np.testing.assert_allclose(radial_spectrum(data, block=4)[1], whole, rtol=1e-5)
    np.testing.assert_allclose(radial_spectrum(data.subset([7, 2]))[1], whole[[7, 2]], rtol=1e-5)

@pytest.mark.parametrize("sigma", [.4, .7, 1., 1.6])
def test_blur_multiplies_the_power(sigma):
    "Catches a factor 2 in the exponent of the blur, or of its spectrum."
    noise = white(200, 32, seed=1)
    f, before = radial_spectrum(noise)
    after = radial_spectrum(gaussian_blurred(noise, sigma))[1]
    inside = (f > .1) & (f < min(.45, .28/sigma))
    fall = np.log(after.mean(0)/before.mean(0))[inside]
    np.testing.assert_allclose(fall, -4*np.pi**2*sigma**2*f[inside]**2, atol=.25)

@pytest.mark.parametrize("sigma", [.5, 1., 2.])
def test_the_blur_is_found(phantoms, sigma):
    "Catches a fit that takes rounding for detail (its blur of 2 px would be 1.3), and one that stops in the wrong valley."
    real, other = phantoms
    assert matching_blur(gaussian_blurred(other, sigma), real) == pytest.approx(sigma, rel=.12)

def test_what_is_no_blur(phantoms):
    "Catches a loss of contrast, a lattice or noise that is taken for a blur."
    real, other = phantoms
    pixels = other.images[other.rows]
    noisy = (pixels + np.random.default_rng(0).normal(0, 8, pixels.shape)).round().clip(0, 255).astype(np.uint8)
    for images in (other, (.6*pixels + 40).astype(np.uint8), noisy): assert matching_blur(images, real) < .3
    assert sharpness(noisy, real, 0).value["2 to 4 px"] > 2

def test_sharpness_of_a_known_blur(phantoms):
    "Catches octaves in the wrong order, a gap of the wrong sign, and an interval that does not hold its value."
    real, other = phantoms
    table = sharpness(gaussian_blurred(other, .7), real, 8)
    gaps = table.value.drop("matching blur")
    assert list(table.index) == ["2 to 4 px", "4 to 8 px", "8 to 16 px", "matching blur"]
    assert gaps.is_monotonic_increasing and gaps.iloc[0] < -8 and abs(gaps.iloc[-1]) < 2
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    assert sharpness(gaussian_blurred(other, .7), real, 0).value.to_numpy() == pytest.approx(table.value.to_numpy())

def test_groups_widen_the_interval():
    "Catches a bootstrap that counts ten images of a lesion as ten lesions."
    amplitude = np.random.default_rng(0).uniform(.2, 1, 30).repeat(10)[:, None, None, None]
    pixels = np.rint(128 + (white(300, 16) - 128.)*amplitude).astype(np.uint8)
    def width(groups):
        gap = sharpness(white(50, 16), as_image_data(pixels, groups=groups), 2).loc["2 to 4 px"]
        return gap.high - gap.low
    assert width(np.arange(30).repeat(10).astype(str)) > 2*width(np.arange(300).astype(str))

def test_plain_images():
    "Catches the logarithm of no power at all."
    flat = np.full((30, 16, 16, 1), 90, np.uint8)
    assert np.isfinite(sharpness(flat, white(30, 16), 2).value).all()

def test_what_is_refused():
    "Catches sets that cannot be compared, and a blur that sharpens."
    with pytest.raises(MetricError, match="real: 3 images; at least 24"): matching_blur(white(30), white(3))
    with pytest.raises(DataError, match="sizes or channels differ"): sharpness(white(30), white(30, 16))
    with pytest.raises(MetricError, match="at least 16 are needed"): sharpness(white(30, 8), white(30, 8, seed=1))
    with pytest.raises(ParameterError, match="sigma=-1"): gaussian_blurred(white(2), -1)

def test_picture_has_a_line_a_set():
    "Catches a set that is not drawn, and a spectrum on the wrong axis."
    ax = plot_spectra(dict(a=white(30), b=gaussian_blurred(white(30), 1.)))
    a, b = ax.lines
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    assert a.get_xdata()[-1] == .5 and b.get_ydata()[-1] < a.get_ydata()[-1] - 10
    plt.close(ax.figure)
