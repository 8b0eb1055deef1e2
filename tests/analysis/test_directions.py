"Directions: conventions, held-out strength, steps, and effects of a generator whose directions are known."
import numpy as np
import pytest
import torch
from torch import nn

from medgan.analysis.directions import (
    Directions,
    effects,
    entanglement,
    move,
    principal_components,
    semantic_factorization,
    separating_plane,
)
from medgan.analysis.latent_space import latent_space
from medgan.core.checks import ParameterError
from medgan.models.stylegan2 import Generator

class Two(nn.Module):
    "Images (B,1,2,2) whose first row is the first latent and whose second row is twice the second."
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(2, 4, bias=False)
        self.start.weight.data = torch.tensor([[1., 0], [1, 0], [0, 2], [0, 2]])
        self.z_dim = 2
    def forward(self, z, labels=None): return self.start(z).view(-1, 1, 2, 2)/50

@pytest.fixture(scope="module")
def two(): return latent_space(Two(), n=2000)

PIXELS = dict(first=lambda x: x[:, 0, 0, 0].numpy(), second=lambda x: x[:, 0, 1, 0].numpy())

def test_steps_are_deviations(two):
    "Catches a step of another length: along an axis of a normal latent one step is one deviation."
    axes = Directions(two, "", torch.eye(2), torch.ones(2))
    table = effects(dict(axis=axes), PIXELS, n=400, reach=1.)
    assert table.loc[("axis 1", "first"), "value"] == pytest.approx(1, abs=.1)
    assert table.loc[("axis 2", "second"), "value"] == pytest.approx(1, abs=.1) and abs(table.loc[("axis 1", "second"), "value"]) < .02

def test_step_does_not_depend_on_length(two):
    "Catches directions that move farther because they are longer."
    codes = torch.zeros(1, 2)
    assert torch.equal(move(two, codes, torch.tensor([3., 0]), [1]), move(two, codes, torch.tensor([1., 0]), [1]))

def test_signs_and_order(two):
    "Catches directions whose sign is a matter of the library, and strongest ones that come last."
    torch.manual_seed(0)
    style = latent_space(Generator(16, z_dim=6, w_dim=6, base=128, most=16), "w", n=500)
    for found in (principal_components(style, 6, n=500), semantic_factorization(style, 6)):
        largest = found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True))
        assert (largest > 0).all() and (found.strength.diff() <= 1e-6).all()
        assert torch.allclose(found.vectors.norm(dim=1), torch.ones(6), atol=1e-5)

def test_strength_is_held_out(two):
    "Catches a plane that is judged on the codes it was fitted to: labels by chance would look separable."
    codes = torch.randn(90, 40, generator=torch.Generator().manual_seed(0))
    by_chance = np.random.default_rng(0).random(90) > .5
    assert separating_plane(two, codes, by_chance).strength[0] < .75
    rare = codes[:, 0].numpy() > .9
    assert separating_plane(two, codes[:, :3], rare).strength[0] > .6     # balanced: 'never' would have .5

def test_unmeasured_images_are_left_out(two):
    "Catches one image without a number (no lesion found) that makes a whole row NaN."
    def sometimes(x): return np.where(np.arange(len(x)) % 5 == 0, np.nan, x[:, 0, 0, 0].numpy())
    assert np.isfinite(effects(dict(a=Directions(two, "", torch.eye(2)[:1], torch.ones(1))), dict(s=sometimes), n=100).value).all()

def test_entanglement_is_relative(two):
    "Catches effects that are not divided by that on the wanted property."
    mixed = Directions(two, "", torch.tensor([[.6, .8]]), torch.ones(1))
    row = entanglement(effects(dict(m=mixed), PIXELS, n=2000), dict(m="first")).loc["m"]
    assert row["first"] == 1 and row["second"] == pytest.approx(.8/.6, rel=.1)

@pytest.mark.parametrize("said, ask", [
    ("have 2 numbers", lambda s: move(s, torch.zeros(1, 2), torch.ones(3), [1])),
    ("take w\\+", lambda s: move(s, torch.zeros(1, 2), torch.ones(2), [1], slice(1))),
    ("0 codes have the property", lambda s: separating_plane(s, torch.zeros(20, 2), [False]*20)),
    ("k=3", lambda s: principal_components(s, 3, n=20)), ("k=0", lambda s: semantic_factorization(s, 0))])
def test_bad_input(said, ask, two):
    "Catches a direction of another space, layers that there are not, and a property that all images have."
    with pytest.raises(ParameterError, match=said): ask(two)
