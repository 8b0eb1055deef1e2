"Projected features and the discriminators on them, beyond what the notebook shows."
import pytest
import torch
from torch import nn

from medgan.core.checks import ParameterError
from medgan.networks.projection import (
    FeatureProjection,
    ImagePyramid,
    MultiScaleDiscriminator,
    ScaleDiscriminator,
    level_shapes,
)

@pytest.mark.parametrize("size", [32, 64, 100, 128])
@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
def test_shapes_are_foretold(size, n_levels):
    "Catches a discriminator built for other features than those that come: odd sizes, fewer levels."
    projection = FeatureProjection(weights="random", size=size, n_levels=n_levels, width=4)
    features = projection(torch.rand(2, 3, 40, 40)*2 - 1)
    assert [(f.shape[1], f.shape[2]) for f in features] == list(zip(*level_shapes(size, n_levels, 4)))
    D = MultiScaleDiscriminator(projection.channels, projection.sides, n_classes=3, most=8)
    assert all(max(logits.shape[1:]) <= 4 for logits in D(features, torch.tensor([0, 2])))

def test_finer_scales_depend_on_coarser_ones():
    "Catches scales that are not mixed, and a mixture in the wrong direction."
    projection = FeatureProjection(weights="random", size=64, width=4)
    x = torch.rand(1, 3, 64, 64)*2 - 1
    before = projection(x)
    nn.init.zeros_(projection.across_channels[2].weight)
    changed = [not torch.equal(a, b) for a, b in zip(before, projection(x))]
    assert changed == [True, True, True, False]

def test_random_state_is_left_alone():
    "Catches projections that change what is drawn afterwards, so that a run depends on when it builds them."
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    FeatureProjection(weights="random", size=32, width=4, seed=7)
    assert torch.equal(torch.rand(3), expected)

def test_grey_is_grey_rgb():
    "Catches one channel that is taken for another image than its grey RGB."
    projection = FeatureProjection(weights="random", size=32, width=4)
    grey = torch.rand(1, 1, 32, 32)*2 - 1
    assert all(torch.equal(a, b) for a, b in zip(projection(grey), projection(grey.expand(-1, 3, -1, -1).contiguous())))

def test_variance_of_the_projections():
    "Catches convolutions of another variance than Kaiming's, which would drown one scale in another."
    projection = FeatureProjection(weights="random", size=32, width=64)
    for convolution in (*projection.across_channels, *projection.across_scales):
        assert convolution.weight.var().item() == pytest.approx(2/convolution.weight[0].numel(), rel=.1)
        assert not convolution.bias.any()

def test_levels_out_of_range():
    "Catches a level that does not exist, and an image of a single pixel."
    for wrong in (0, 5, 2.5):
        with pytest.raises(ParameterError, match="n_levels"): FeatureProjection(weights="random", n_levels=wrong)
    with pytest.raises(ParameterError, match="size=16"): FeatureProjection(weights="random", size=16)
    with pytest.raises(ValueError, match="images of 16 px have no 4 sizes"): ImagePyramid(16)

def test_labels_of_no_class():
    "Catches an error of indices from deep within."
    D = MultiScaleDiscriminator([4], [8], n_classes=2, most=8)
    with pytest.raises(ValueError, match=r"labels=\[0, 2\]: must be from 0 to 1"): D([torch.rand(2, 4, 8, 8)], torch.tensor([0, 2]))

def test_each_image_is_judged_by_itself():
    "Catches a norm over the batch: what D says of one image would depend on the others."
    D = ScaleDiscriminator(4, 16, most=8).eval()
    f = torch.rand(3, 4, 16, 16)
    torch.testing.assert_close(D(f)[:1], D(f[:1]), atol=1e-5, rtol=1e-4)
