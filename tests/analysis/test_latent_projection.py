"Projection: the distance, the published course of rate and noise, and what is said of memory."
import pytest
import torch

from medgan.analysis.latent_projection import (
    PerceptualDistance,
    Projected,
    _rate,
    _whiten,
    noise_correlation,
    project,
    projection_memory,
)
from medgan.analysis.latent_space import latent_space
from medgan.core.checks import ParameterError
from medgan.networks.fastgan import FastGANGenerator

@pytest.fixture(scope="module")
def distance(): return PerceptualDistance("random")

@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    return latent_space(FastGANGenerator(32, z_dim=8, width=2))

def found(distances):
    "A projection of which only the distances matter."
    d = torch.tensor(distances)
    return Projected(torch.zeros(len(d), 1), torch.zeros(len(d), 3, 1, 1), d, d, d, None)

def test_rate_rises_and_falls():
    "Catches ramps the wrong way round, and a rate that does not end at 0 (Karras et al. 2020a, appendix D)."
    rates = [_rate(t) for t in (0, .025, .05, .5, .75, .875, .9999)]
    assert rates[0] == 0 and rates[1] == .5 and rates[2] == rates[3] == rates[4] == 1
    assert rates[5] == pytest.approx(.5) and rates[6] < 1e-4

def test_distance_sees_colour_and_shape(distance):
    "Catches features whose length counts, pixels that weigh nothing, and a mean over the batch."
    x = torch.rand(3, 3, 32, 32)*2 - 1
    fx = distance.features(x)
    apart = distance(distance.features(torch.stack([x[0], x[1] + .2, x[2].flip(-1)])), fx)
    assert apart[0] == 0 and apart[1] >= 10*.04*.99 and apart[2] > 0 and apart.shape == (3,)
    assert all(torch.isfinite(f).all() for f in distance.features(torch.zeros(1, 1, 32, 32)))

def test_noise_stays_noise():
    "Catches maps that are not brought back to mean 0 and deviation 1, and correlations that only one direction shows."
    maps = dict(a=torch.randn(2, 1, 16, 16)*3 + 1)
    _whiten(maps)
    assert maps["a"].mean((1, 2, 3)).abs().max() < 1e-5 and (maps["a"].std((1, 2, 3), unbiased=False) - 1).abs().max() < 1e-4
    stripes = torch.ones(1, 1, 32, 32)
    stripes[..., ::2] = -1
    assert min(noise_correlation(dict(a=s)).item() for s in (stripes, stripes.transpose(2, 3))) > 1

def test_batches_are_one_by_one(space, distance):
    "Catches batches after the first that search with other noise, and results in another order."
    images = space.images(torch.randn(5, 8, generator=torch.Generator().manual_seed(3)))
    options = dict(steps=8, distance=distance, progress="")
    whole, cut = project(space, images, **options), project(space, images, batch_size=2, **options)
    assert torch.allclose(whole.codes, cut.codes, atol=1e-3) and (whole.distance < whole.start).all()
    assert whole.path.to_numpy() == pytest.approx(cut.path.to_numpy(), rel=1e-3)

def test_memory_is_nearer():
    "Catches a curve the wrong way round: training images that are nearer are evidence, farther ones are not."
    near, far = [.1, .2, .3, .4, .5, .6], [.35, .45, .55, .7, .8, .9]
    assert projection_memory(found(near), found(far))["auc"] > .7 > .3 > projection_memory(found(far), found(near))["auc"]
    assert projection_memory(found(near), found(far))["p"] < .1 < projection_memory(found(far), found(near))["p"]

@pytest.mark.parametrize("said, change", [("the generator draws", dict(images=torch.zeros(2, 3, 16, 16))), ("steps=0", dict(steps=0)),
                                          ("lr=0", dict(lr=0)), ("1 labels", dict(labels=torch.zeros(1, dtype=torch.long)))])
def test_bad_input(said, change, space, distance):
    "Catches a search that begins with images of another size, or without an end."
    options = dict(images=torch.zeros(2, 3, 32, 32), steps=2, distance=distance, progress="") | change
    with pytest.raises(ParameterError, match=said): project(space, options.pop("images"), **options)
