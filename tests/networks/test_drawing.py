"Drawing by class: which latents, which files, what is refused before anything is drawn."
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medgan.core.checks import ParameterError
from medgan.networks.drawing import as_read, draw_classes

class Toy(nn.Module):
    "A grey level that its latent and its class say."
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.drawn = 0
    def forward(self, z, labels=None):
        self.drawn += len(z)
        level = .1*z[:, 0] + (0 if labels is None else .3*labels) - .5
        return as_read(level[:, None, None, None].expand(-1, 3, 8, 8))

@pytest.fixture
def net(): return Toy()

def test_grey_range():
    "Catches one channel that stays in [-1,1], and a value that is not cut off."
    x = torch.linspace(-2, 2, 9).view(1, 1, 3, 3)
    assert as_read(x).min() == 0 and as_read(x).max() == 1 and torch.equal(as_read(x), x.clamp(-1, 1)/2 + .5)

def test_same_latents_for_each_class(net):
    "Catches latents that go on from one class to the next: rows of a figure would differ by more than their class."
    a, b = draw_classes(net, 4, ["x", "y"], 5, ["y", "x"], seed=2).split(5)
    torch.testing.assert_close(a - b, torch.full_like(a, .3))
    again, other = (draw_classes(net, 4, ["x", "y"], 5, "x", seed=seed) for seed in (2, 3))
    assert torch.equal(b, again) and not torch.equal(b, other)

def test_files_say_what_they_are(net, tmp_path):
    "Catches files whose class, seed or number is another than what was drawn."
    draw_classes(net, 4, ["x", "y"], 3, ["y", "x"], seed=7, out_dir=str(tmp_path/"new"))
    table = pd.read_csv(tmp_path/"new"/"images.csv")
    assert table.dx.tolist() == ["y"]*3 + ["x"]*3 and set(table.seed) == {7} and table.number.tolist() == [0, 1, 2]*2
    draw_classes(net, 4, [], 2, out_dir=str(tmp_path/"plain"))
    assert len(list((tmp_path/"plain").rglob("*.png"))) == 2

def test_refused_before_it_is_drawn(net, tmp_path):
    "Catches an hour of drawing that ends in an error about the folder, or about a class."
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"note.txt").write_text("kept")
    good = dict(n=1, dx="x")
    for wrong, message in ((dict(n=0), "n=0"), (dict(n=2.5), "n=2.5"), (dict(dx="z"), "dx='z': must be one of 'x', 'y'"),
                           (dict(dx=[]), "name at least one class"), (dict(dx=["x", "x"]), "each once"), (dict(seed=-1), "seed=-1"),
                           (dict(out_dir=str(tmp_path/"full")), "holds note.txt already")):
        with pytest.raises(ParameterError, match=message): draw_classes(net, 4, ["x", "y"], **good | wrong)
    assert net.drawn == 0

def test_many_images(net):
    "Catches images of a last part that is smaller than the others, and their order."
    images = draw_classes(net, 4, ["x", "y"], 150, "x", seed=0)
    z = torch.randn(150, 4, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(images[:, 0, 0, 0], (.1*z[:, 0] - .5).clamp(-1, 1), atol=1e-6)
