"Heat maps and the tests that they can fail."
import numpy as np
import pytest
import torch
from torch import nn

from medgan.analysis.explanations import (
    inside_mask,
    integrated_gradients,
    map_agreement,
    randomisation_test,
    removal_curves,
    removal_table,
    xrai,
)
from medgan.core.checks import ParameterError

class Corner(nn.Module):
    "Two logits: 0, and the brightness of a corner in the second half of the channels' order."
    def __init__(self, channel=1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 24, 24))
        self.weight.data[channel, :8, :8] = .03
    def forward(self, x): return torch.stack([torch.zeros(len(x)), (x*self.weight).sum((1, 2, 3))], 1)

IMAGES = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))*2 - 1
CORNER = np.zeros((3, 24, 24), bool)
CORNER[:, :8, :8] = True
def pixels(net, images, labels): return integrated_gradients(net, images, labels, steps=5, progress="")

def test_gradients_add_up():
    "Catches channels in the wrong places, images in another range, and a sum that is not the logit's way from black."
    maps, black = pixels(Corner(), IMAGES, [1]*3), torch.full_like(IMAGES, -1)
    assert maps.sum((1, 2)) == pytest.approx((Corner()(IMAGES) - Corner()(black))[:, 1].detach().numpy(), abs=1e-3)
    assert not maps[~CORNER].any() and maps[CORNER].any()

def test_each_image_has_its_class():
    "Catches all images explained for the first one's class."
    maps = pixels(Corner(), IMAGES, [1, 0, 1])
    assert maps[0].any() and not maps[1].any() and maps[2].any()

def test_explaining_changes_nothing():
    "Catches a classifier that is left in evaluation mode, on another device, or with gradients."
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3*24*24, 2)).train()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    xrai(net, IMAGES[:1], [1], steps=2, progress="")
    assert net.training and all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())

def test_inside_is_a_share_of_the_positive():
    "Catches negative attribution that is subtracted, and pointing to one of several highest places."
    maps = np.zeros((3, 24, 24))
    maps[:, 2, 2], maps[:, 20, 20], maps[:, 22, 22] = 3, 1, -100
    maps[2, 20, 20] = 3
    found = inside_mask(maps, CORNER)
    assert found.share.tolist() == [.75, .75, .5] and found.pointing.tolist() == [1, 1, .5]
    assert found.area[0] == pytest.approx(64/576)

def test_curves_begin_and_end():
    "Catches insertion and deletion mixed up, the order turned round, and a curve that does not reach the whole image."
    net, bright = Corner(), (.2*IMAGES + .8*torch.from_numpy(CORNER)[:, None]).clamp(-1, 1)
    p = net(bright).softmax(1)[:, 1].detach().numpy()
    maps = CORNER.astype(float)
    deletion, insertion = (removal_curves(net, bright, maps, [1]*3, insert=insert) for insert in (False, True))
    assert deletion[:, 0] == pytest.approx(p) and insertion[:, -1] == pytest.approx(p) and deletion.shape == (3, 21)
    assert deletion[:, -1] == pytest.approx(insertion[:, 0])
    assert (insertion[:, 4] > insertion[:, 0]).all()                                        # the corner is 11 % of the image
    backwards = removal_curves(net, bright, -maps, [1]*3, insert=True)
    assert (backwards[:, 4] < insertion[:, 4]).all()
    table = removal_table(net, bright, maps, [1]*3)
    assert table.loc[("insertion", "random"), "difference"] > 0 and np.isnan(table.loc[("insertion", "map"), "difference"])

def test_agreement_is_of_ranks():
    "Catches a correlation that one bright pixel makes, and a constant map that agrees with all."
    a = np.random.default_rng(0).random((2, 24, 24))
    assert map_agreement(a, np.exp(5*a)) == pytest.approx([1, 1]) and map_agreement(a, -a) == pytest.approx([-1, -1])
    assert map_agreement(a, np.ones_like(a)) == pytest.approx([0, 0])

def test_shuffling_begins_at_the_output():
    "Catches weights that are shuffled from the input, or in the network itself."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*24*24, 6), nn.ReLU(), nn.Linear(6, 2))
    before, seen = {name: x.clone() for name, x in net.state_dict().items()}, []
    def explain(net, images, labels):
        seen.append({name: torch.equal(x, before[name]) for name, x in net.state_dict().items()})
        return pixels(net, images, labels)
    table = randomisation_test(explain, net, IMAGES, [1]*3, parts=(0., .5, 1.))
    assert table.layers.tolist() == [0, 1, 2] and table.value.iloc[0] == pytest.approx(1)
    assert seen[2] == {"1.weight": True, "1.bias": True, "3.weight": False, "3.bias": seen[2]["3.bias"]}
    assert not seen[3]["1.weight"] and all(torch.equal(x, before[name]) for name, x in net.state_dict().items())

@pytest.mark.parametrize("said, ask", [
    ("must be \\(N,3,H,W\\)", lambda: xrai(Corner(), IMAGES[:, :1], [1]*3)), ("steps=1", lambda: xrai(Corner(), IMAGES, [1]*3, steps=1)),
    ("are empty", lambda: inside_mask(np.ones((3, 24, 24)), ~CORNER & CORNER)),
    ("must be the same", lambda: inside_mask(np.ones((3, 12, 12)), CORNER)),
    ("must be the same", lambda: map_agreement(np.ones((3, 12, 12)), np.ones((2, 12, 12))))])
def test_bad_input(said, ask):
    "Catches grey images, masks of another size, and an empty mask, of which every map would lie outside."
    with pytest.raises(ParameterError, match=said): ask()
