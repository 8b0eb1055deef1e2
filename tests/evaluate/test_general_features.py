"The autoencoder: the same by seed, goes on as if nobody had killed it, knows what it has seen, and refuses what it cannot learn from."
from dataclasses import replace

import numpy as np
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data, load_data
from medgan.data.splits import group_codes, share_known
from medgan.evaluate.features import ExtractorError, image_features
from medgan.evaluate.general_features import (
    Autoencoder,
    AutoencoderConfig,
    denoising_loss,
    fit_autoencoder,
    load_autoencoder,
    train_autoencoder,
    trunk_maps,
)
from medgan.evaluate.generators import evaluate
from medgan.training.checkpoints import CheckpointError, checkpoints, load_checkpoint, save_checkpoint

SMALL = dict(width=4, epochs=2, batch_size=16, progress="")

@pytest.fixture(scope="module")
def skin(): return load_data("phantom", size=32, n=60)

def grey(n=40, size=32):
    "Discs of random place and brightness."
    rng, y = np.random.default_rng(0), np.arange(size)
    place = rng.uniform(8, size - 8, (2, n, 1, 1))
    inside = (y[None, :, None] - place[0])**2 + (y[None, None] - place[1])**2 < 36
    return as_image_data((inside*rng.integers(100, 255, (n, 1, 1))).astype(np.uint8)[..., None], name="discs")

def test_goes_on(goes_on, skin):
    "Catches a learning rate, noise or an order that depends on when the run began."
    goes_on(lambda folder, resume=False: fit_autoencoder(skin, out_dir=folder, resume=resume, keep=9, checkpoint_every=2, **SMALL))

def test_seed_and_global_state(skin):
    "Catches weights or noise that do not come from the seed alone."
    torch.manual_seed(5)
    first = train_autoencoder(skin, **SMALL)
    torch.manual_seed(6)
    assert train_autoencoder(skin, **SMALL).fingerprint == first.fingerprint != train_autoencoder(skin, **SMALL, seed=1).fingerprint

def test_file(skin, tmp_path):
    "Catches a file that gives another network, forgets what it has seen, or is looked for in the run's folder only."
    made = train_autoencoder(skin, out_dir=str(tmp_path), **SMALL)
    for path in (tmp_path, checkpoints(tmp_path)[-1]):
        again = load_autoencoder(path)
        assert replace(again, net=None) == replace(made, net=None)
        assert np.array_equal(image_features(skin, again, keep=False), image_features(skin, made, keep=False))
    assert made.name == "phantom autoencoder, 32 px" and list(made.seen) == group_codes(skin.groups).tolist()

@pytest.mark.parametrize("change", [dict(width=5), dict(width=10**8), dict(size=40), dict(channels=2), dict(layers=1), dict(lr=None)])
def test_foreign_files(skin, tmp_path, change):
    "Catches another configuration than the weights', one that nobody would train by, and an error of more than a line."
    fit_autoencoder(skin, out_dir=str(tmp_path/"run"), **SMALL)
    state, config = load_checkpoint(checkpoints(tmp_path/"run")[-1])
    save_checkpoint(tmp_path/"other.safetensors", state, config | change)
    with pytest.raises(CheckpointError) as caught: load_autoencoder(tmp_path/"other.safetensors")
    assert "\n" not in str(caught.value)

def test_a_resumed_run_is_the_same_one(skin, tmp_path):
    "Catches a run that goes on with other noise."
    fit_autoencoder(skin, out_dir=str(tmp_path), **SMALL)
    with pytest.raises(CheckpointError, match="noise was 0.1, is 0.2"):
        fit_autoencoder(skin, out_dir=str(tmp_path), resume=True, noise=.2, **SMALL)

def test_seen(skin, cache):
    "Catches an autoencoder that judges the images that trained it, unmarked."
    learned = train_autoencoder(skin, **SMALL)
    others = load_data("phantom", size=32, n=120, phantom_seed=1)
    others = others.subset(~others.table.group.isin(skin.groups).to_numpy())
    assert share_known(skin.groups, learned.seen) == 1
    with pytest.warns(UserWarning, match="phantom autoencoder, 32 px was trained on 100.0%"):
        table = evaluate(others, real=as_image_data(others.images[others.rows]), held_out=skin, extractor=learned, n_splits=0)
    assert set(table.seen) == {1.}

def test_grey_images():
    "Catches an output from -1 for images from 0, and grey images that are turned upside down."
    trainer = fit_autoencoder(grey(), width=8, epochs=30, batch_size=10, progress="")
    net, x = trainer.modules["net"].eval(), grey().read(np.arange(40))["image"]
    with torch.no_grad(): y = net(x)
    assert y.shape == x.shape and 0 <= y.min() and y.max() <= 1
    assert torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1] > .5
    assert train_autoencoder(grey(), **SMALL).channels == 1

@pytest.mark.parametrize("channels, turned", [(3, True), (1, False)])
def test_turns(channels, turned, monkeypatch):
    "Catches brains that lie on their side, and skin with an upper end."
    seen = []
    def noted(net, x, noise): return seen.append((x, noise)) or denoising_loss(net, x, noise)
    monkeypatch.setattr("medgan.evaluate.general_features.denoising_loss", noted)
    pixels = np.zeros((16, 32, 32, channels), np.uint8)
    pixels[:, :4] = 255                                                       # bright above
    fit_autoencoder(as_image_data(pixels), noise=.1, **SMALL)
    upright = torch.cat([(x[:, :, 1] > .5).flatten(1).all(1) for x, _ in seen])
    assert upright.all().item() is not turned
    assert {noise for _, noise in seen} == {.2 if channels == 3 else .1}      # a tenth of [-1,1] is twice that of [0,1]

def test_layers():
    "Catches features of another depth than they are said to be, a bottleneck that is none, and classes left in the encoder."
    net = Autoencoder(width=6, size=48).eval()
    x = torch.rand(2, 3, 48, 48)
    maps = trunk_maps(net.encoder, x)
    assert [m.shape[1:] for m in maps] == [(6, 24, 24), (12, 12, 12), (24, 6, 6), (48, 3, 3)]
    assert torch.equal(maps[-1].mean((2, 3)), net.encoder.features(x)) and net.features(x).shape == (2, 180)
    assert net(torch.rand(2, 3, 96, 96)).shape == x.shape and not [*net.encoder.output.parameters()]

@pytest.mark.parametrize("make, given, message", [
    (lambda: as_image_data(np.zeros((8, 32, 48, 1), np.uint8)), {}, r"\(32, 48\) px; must be squares"),
    (lambda: as_image_data(np.zeros((8, 40, 40, 3), np.uint8)), {}, "size=40: must be a multiple of 16"),
    (lambda: as_image_data(np.zeros((8, 32, 32, 3), np.uint8)), dict(batch_size=9), "only 8 images"),
    (lambda: as_image_data(np.zeros((8, 32, 32, 3), np.uint8)), dict(size=64), "size: the configuration has 64, the data 32"),
    (lambda: as_image_data(np.zeros((8, 32, 32, 3), np.uint8)), dict(noise=2), "noise=2: must be"),
    (lambda: as_image_data(np.zeros((1, 32, 32, 3), np.uint8)), {}, "batch_size=1: must be")])
def test_bad_input(make, given, message):
    "Catches data that it cannot learn from, and a parameter out of range, that end in somebody's traceback."
    options = dict(epochs=1, width=2, progress="") | given
    with pytest.raises((ExtractorError, ParameterError), match=message): fit_autoencoder(make(), **options)

def test_defaults():
    "Catches defaults that no longer fit the shipped networks' width and size."
    assert (AutoencoderConfig().width, AutoencoderConfig().size, AutoencoderConfig.ends) == (24, 64, True)
