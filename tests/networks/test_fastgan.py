"FastGAN's generator, beyond what the notebook shows."
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.networks.fastgan import ClassNorm, FastGANGenerator, PixelNoise, SkipExcitation

def test_norms_average_like_batch_norm():
    "Catches running averages that another class's factor or shift changes, and an evaluation mode that looks at the batch."
    torch.manual_seed(0)
    norm, plain = ClassNorm(3, 2), torch.nn.BatchNorm2d(3, affine=False)
    with torch.no_grad(): norm.factor.copy_(torch.rand(2, 3))
    x, labels = torch.randn(8, 3, 4, 4), torch.arange(8) % 2
    for _ in range(3):
        norm(x, labels)
        plain(x)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    y = norm.eval()(x, labels)
    torch.testing.assert_close(norm(x[:1], labels[:1]), y[:1])
    torch.testing.assert_close(y, plain.eval()(x)*norm.factor[labels, :, None, None])

def test_noise_is_new_in_training_only():
    "Catches noise that is the same for all images of a batch in training, and another one at each call in evaluation mode."
    noise = PixelNoise(8)
    zero = torch.zeros(2, 3, 8, 8)
    assert not noise(zero).any()                                         # its weight begins at 0
    with torch.no_grad(): noise.weight.fill_(1)
    y = noise(zero)
    assert torch.equal(y[:, 0], y[:, 2]) and not torch.equal(y[0], y[1]) and not torch.equal(y, noise(zero))
    assert torch.equal(noise.eval()(zero), noise(zero))

@pytest.mark.parametrize("size, sources", [(32, {}), (64, {64: 4}), (128, {64: 4, 128: 8}), (256, {64: 4, 128: 8, 256: 16})])
def test_which_maps_excite_which(size, sources):
    "Catches a large map that is weighted by another small one than sixteen times smaller."
    G = FastGANGenerator(size, z_dim=4, width=2).eval()
    seen = {}
    for side, excite in G.excitations.items():
        excite.register_forward_hook(lambda module, given, out, side=side: seen.__setitem__(int(side), given[0].shape[-1]))
    G(torch.randn(1, 4))
    assert seen == sources

def test_excitation_is_bounded():
    "Catches channels that are made larger, or turned in sign."
    excite = SkipExcitation(2, 3)
    large = torch.randn(2, 3, 8, 8)
    y = excite(100*torch.randn(2, 2, 4, 4), large)
    assert (y.abs() <= large.abs()).all() and (y*large >= 0).all()

def test_latents_lie_on_a_sphere():
    "Catches a generator whose images change with the latent's length."
    G = FastGANGenerator(32, z_dim=4, width=2).eval()
    z = torch.randn(2, 4)
    torch.testing.assert_close(G(z), G(3*z), atol=1e-5, rtol=1e-3)

@pytest.mark.parametrize("wrong", [dict(size=16), dict(size=64.5), dict(size=32, width=1), dict(size=32, width=2.5)])
def test_bad_sizes(wrong):
    "Catches sizes for which there are no layers."
    with pytest.raises(ParameterError): FastGANGenerator(**wrong)
