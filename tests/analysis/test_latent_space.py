"Latent spaces: means of classes, spreads, noise of each image, and that looking at a generator leaves it as it was."
import pytest
import torch

from medgan.analysis.latent_space import latent_space, noise_maps
from medgan.core.checks import ParameterError
from medgan.models.stylegan2 import Generator
from medgan.networks.fastgan import FastGANGenerator

@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    net = Generator(16, n_classes=2, z_dim=6, w_dim=10, base=128, most=16)
    with torch.no_grad():
        for name, strength in net.named_parameters():
            if name.endswith("noise_strength"): strength.fill_(.2)
    return net

def test_each_class_has_its_mean(G):
    "Catches one mean for all classes, and a mean code that belongs to the other class."
    space = latent_space(G, "w", 2, n=500)
    codes = space.of(torch.randn(400, 6), torch.arange(400) % 2)
    for label in (0, 1): assert (codes[label::2].mean(0) - space.means[label]).norm() < .3*space.spread
    assert torch.equal(space.mean_of(3, torch.tensor([1, 0, 1])), space.means[[1, 0, 1]])

def test_spread_is_about_the_classes_own_mean(G):
    "Catches a spread that holds the distance between classes, or the variance in its place."
    space = latent_space(G, "w", 2, n=2000)
    codes = space.of(torch.randn(2000, 6, generator=torch.Generator().manual_seed(1)), torch.zeros(2000, dtype=torch.long))
    assert space.spread == pytest.approx((codes - codes.mean(0)).square().sum(1).mean().sqrt().item(), rel=.25)

def test_looking_changes_nothing(G):
    "Catches noise that is written into the generator's buffers, and gradients that reach its weights."
    before = {name: x.clone() for name, x in G.state_dict().items()}
    space = latent_space(G, "w+", 2, n=100)
    codes = space.mean_of(2, torch.tensor([0, 1])).requires_grad_()
    maps = {name: m.requires_grad_() for name, m in noise_maps(space, 2).items()}
    space.images(codes, None, maps).sum().backward()
    assert codes.grad.abs().sum() > 0 and all(m.grad.abs().sum() > 0 for m in maps.values())
    assert all(torch.equal(x, before[name]) for name, x in G.state_dict().items()) and not any(p.requires_grad for p in G.parameters())

def test_layers_have_codes_of_their_own(G):
    "Catches a w+ in which one layer's code moves all layers."
    space = latent_space(G, "w+", 2, n=100)
    codes = space.mean_of(1, torch.tensor([0]))
    fine = codes.clone()
    fine[:, -1] += 5
    assert codes.shape == (1, space.n_layers, 10) and not torch.equal(space.images(fine), space.images(codes))
    assert (codes[:, :-1] == fine[:, :-1]).all()

def test_noise_of_an_image_is_its_own(G):
    "Catches noise that depends on who else is in the batch."
    space = latent_space(G, "w", 2, n=100)
    three, last = noise_maps(space, 3, seed=5), noise_maps(space, 1, seed=7)
    for name, maps in three.items(): assert torch.equal(maps[2:], last[name]) and not torch.equal(maps[0], maps[1])

@pytest.mark.parametrize("said, ask", [
    ("only StyleGAN2's generator has styles", lambda G: latent_space(FastGANGenerator(32, z_dim=4, width=2), "w")),
    ("space='v'", lambda G: latent_space(G, "v")), ("n=1", lambda G: latent_space(G, "w", 2, n=1)),
    ("labels", lambda G: latent_space(G, "w", 2, n=10).mean_of(2, torch.tensor([0, 2])))])
def test_bad_input(said, ask, G):
    "Catches a space that the generator does not have, and a class that it does not know."
    with pytest.raises((ParameterError, ValueError), match=said): ask(G)
