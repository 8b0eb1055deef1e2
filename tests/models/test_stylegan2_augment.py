"The strength of the augmentation keeps its pace, whatever the batch and however often it is interrupted."
import math

import numpy as np
import pytest
import torch

from medgan.models.stylegan2_augment import AdaptiveP, Augment, resample
from medgan.training.checkpoints import same_state

def test_p_keeps_its_pace():
    "Catches p that moves by steps and not by images: with another batch the run would be another."
    for batch in (2, 8):
        adapt = AdaptiveP(Augment("bg"), kimg=1.)
        for _ in range(96//batch): adapt(torch.ones(batch))
        assert adapt.augment.p.item() == pytest.approx(.096)

def test_p_goes_on():
    "Catches signs since the last change that are lost with the process."
    logits = torch.randn(10, 8, generator=torch.Generator().manual_seed(0)) + 1
    whole = AdaptiveP(Augment("bg"), kimg=.1)
    for batch in logits: whole(batch)
    first, second = (AdaptiveP(Augment("bg"), kimg=.1) for _ in range(2))
    for batch in logits[:6]: first(batch)
    second.load_state_dict(first.state_dict())
    second.augment.load_state_dict(first.augment.state_dict())
    for batch in logits[6:]: second(batch)
    assert same_state(second.state_dict(), whole.state_dict()) and second.augment.p == whole.augment.p > 0

def mirrored(x, pixels):
    "Images (B,C,n,n) moved to the right and down; one mirror reaches as far as an image is long."
    x, n = x.numpy(), x.shape[2]
    while pixels > 0:
        step = min(pixels, n - 1)
        x, pixels = np.pad(x, ((0, 0), (0, 0), (step, 0), (step, 0)), mode="reflect"), pixels - step
    return x[..., :n, :n]

@pytest.mark.parametrize("pixels", [1, 4, 16, 40, 63, 64, 100, 128])
def test_exact_mirror_beyond_the_edges(pixels):
    "Catches places that are folded about the edge of a margin, or read off the enlarged image's own mirror image: up to twice the side."
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    move = torch.eye(3).repeat(2, 1, 1)
    move[:, :2, 2] = -2*pixels/64
    np.testing.assert_allclose(resample(x, move).numpy(), mirrored(x, pixels), atol=1e-5)

def test_far_away_is_near():
    "Catches a period that is a pixel too long: a whole number of them away, all is where it was."
    x = torch.rand(1, 1, 16, 16, dtype=torch.double)
    far = torch.eye(3, dtype=torch.double)[None].clone()
    far[:, 0, 2] = 2*30*7/16
    torch.testing.assert_close(resample(x, far), x, atol=1e-6, rtol=0)

def test_resampled_as_published():
    "Catches another delay of the enlarged image than half a large pixel, or the wavelet turned round: numbers of published code."
    x = (torch.arange(256.).view(1, 1, 16, 16)*.37).sin()
    c, s = math.cos(.3), math.sin(.3)
    matrix = torch.tensor([[[1.2*c, -.9*s, 0], [1.2*s, .9*c, 0], [0, 0, 1]]])
    published = torch.tensor([[.2157, .4896, .7209], [-.1891, .1029, .3860], [-.5632, -.2998, -.0113]])
    torch.testing.assert_close(resample(x, matrix)[0, 0, 6:9, 6:9], published, atol=1e-4, rtol=0)

def test_resampling_is_its_own_transpose_twice():
    "Catches a second derivative that forgets where the pixels were read."
    x = torch.rand(1, 1, 8, 8, dtype=torch.double, requires_grad=True)
    matrix = torch.tensor([[[.8, -.5, .3], [.5, .9, -.7], [0, 0, 1]]], dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x: resample(x, matrix).square(), x)
    assert torch.autograd.gradgradcheck(lambda x: resample(x, matrix).square(), x, fast_mode=True)
