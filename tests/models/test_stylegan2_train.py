"A run of StyleGAN2-ADA: killed and gone on, started from other weights, on images that fit and on images that do not."
import numpy as np
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.models.stylegan2 import Discriminator, preset
from medgan.models.stylegan2_augment import Augment
from medgan.models.stylegan2_train import (
    PATH_EVERY,
    R1_EVERY,
    StyleGAN2Config,
    build_stylegan2,
    draw_stylegan2,
    load_stylegan2,
    stylegan2_config,
    train_stylegan2,
)
from medgan.models.stylegan2_weights import export_weights
from medgan.training.checkpoints import CheckpointError

CONFIG = dict(batch_size=4, z_dim=8, w_dim=8, base=128, most=8, ada_kimg=.1, mirror=True)

def noise(n=24, seed=0, size=16, channels=3):
    images = np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)
    return as_image_data(images, labels=np.arange(n) % 2, classes=["a", "b"])

@pytest.fixture(scope="module")
def data(): return noise()

@pytest.mark.parametrize("p", [None, .3])
def test_killed_run_goes_on(p, data, goes_on):
    """Catches anything that training depends on and that the checkpoint lacks: p, the signs since it last moved, the mean path length,
    the average of the weights."""
    config = CONFIG | dict(p=p, target=-1., epochs=4)
    often = dict(progress="", checkpoint_every=7, log_every=1)
    whole = goes_on(lambda folder, **options: train_stylegan2(data, config, folder, **often, **options))
    assert (whole["modules"]["augment"]["p"] > (p or 0)) == (p is None)
    assert whole["extra"]["path"]["mean"] > 0 and whole["extra"]["last"]["r1"] > 0

def test_lazy_terms_come_at_their_turn(data):
    "Catches a regulariser in every step, or never, and a row of statistics that lacks it."
    rows = train_stylegan2(data, CONFIG, epochs=4, progress="", log_every=1).history
    changed = {name: (np.flatnonzero(rows[name].diff().fillna(1) != 0)).tolist() for name in ("path", "r1")}
    assert changed == dict(path=list(range(0, 24, PATH_EVERY)), r1=list(range(0, 24, R1_EVERY)))
    assert (train_stylegan2(data, CONFIG, epochs=1, pl_weight=0., progress="").history.path == 0).all()

def test_wrong_data(data):
    "Catches images of another size, channels or classes than the networks', found only by an error in the middle of a step."
    one_only = as_image_data(data.images, labels=np.zeros(24, int), classes=["a", "b"])
    oblong = as_image_data(np.zeros((4, 16, 32, 1), np.uint8))
    given = StyleGAN2Config(**CONFIG | dict(size=16, channels=3, classes=("a", "b")))
    for other, error, message in ((noise(size=32), ParameterError, "size: the configuration has 16, the data 32"),
                                  (noise(size=8), ParameterError, "size: the configuration has 16, the data 8"),
                                  (noise(channels=1), ParameterError, "channels: the configuration has 3, the data 1"),
                                  (data.select(["a"]), ParameterError, "classes: the configuration has a, b, the data a"),
                                  (one_only, DataError, "no image of the classes b"), (oblong, DataError, "16 x 32 px")):
        with pytest.raises(error, match=message): train_stylegan2(other, given, progress="")
    with pytest.raises(ParameterError, match="size=8: must be one of 16, 32"): train_stylegan2(noise(size=8), CONFIG, progress="")
    gap = np.arange(24) % 2*2                                                # 0 and 2 are not 0..n-1
    with pytest.raises(DataError, match="label"): as_image_data(data.images, labels=gap, classes=["a", "b"])

def test_last_layer_has_channels():
    "Catches a base that leaves the layer at full size no channel, found only where the network is built."
    with pytest.raises(ValueError, match="base=32: must be at least size=64"): StyleGAN2Config(size=64, base=32)
    assert StyleGAN2Config(size=64, base=64).base == 64

def test_preset_follows_from_size_and_batch(data):
    "Catches R1's weight of another batch, and a default that wins over what is given."
    for batch_size in (4, 8., np.int64(2)):
        made, _ = stylegan2_config(data, dict(batch_size=batch_size), {})
        assert dict(made).items() >= preset("laptop", 16, int(batch_size)).items() and made.size == 16 and made.classes == ("a", "b")
    made, loop = stylegan2_config(data, dict(gamma=3., batch_size=4), dict(log_every=2, base=64))
    assert (made.gamma, made.base, made.ema_kimg, loop) == (3., 64, preset("laptop", 16, 4)["ema_kimg"], dict(log_every=2))
    assert stylegan2_config(data, dict(classes=[]), {})[0].classes == ()

@pytest.mark.parametrize("wrong", [dict(batch_size="many"), dict(batch_size=None), dict(batch_size=[]), dict(batch_size=1e12),
                                   dict(batch_size=float("nan")), dict(classes=None), dict(classes=3), dict(classes="ab"),
                                   dict(classes=[1, 2])])
def test_values_that_others_follow_from(wrong, data):
    "Catches a value from which a preset is computed before it is checked: a TypeError, or a message about what nobody has given."
    with pytest.raises(ParameterError) as caught: train_stylegan2(data, wrong, progress="")
    name, = wrong
    assert str(caught.value).startswith(f"{name}=") and ";" not in str(caught.value)

def test_more_classes_than_the_checkpoint(data):
    "Catches weights of two classes taken for three, and labels that a generator does not have."
    G, D = build_stylegan2(StyleGAN2Config(**CONFIG | dict(size=16, classes=("a", "b"))))
    start = export_weights(G), export_weights(D)
    three = as_image_data(data.images, labels=np.arange(24) % 3, classes=["a", "b", "c"])
    with pytest.raises(CheckpointError, match="another architecture"): train_stylegan2(three, CONFIG, start=start, progress="")
    with pytest.raises(ValueError, match="labels"): draw_stylegan2(G, torch.randn(2, 8))
    with pytest.raises(ValueError, match="labels"): draw_stylegan2(G, torch.randn(2, 8), torch.tensor([0, 2]))

def test_transfer_begins_where_the_other_ended(data, tmp_path):
    "Catches weights that are read and then drawn anew, and an average that does not start from them."
    run = train_stylegan2(data, CONFIG, str(tmp_path/"a"), progress="")
    G, config = load_stylegan2(tmp_path/"a")
    start = export_weights(G), export_weights(run.modules["D"])
    z, c = torch.randn(4, 8), torch.tensor([0, 1, 0, 1])
    still = train_stylegan2(data, CONFIG | dict(lr=1e-12, epochs=.1), start=start, progress="")
    torch.testing.assert_close(draw_stylegan2(still.ema["G"].average, z, c), draw_stylegan2(G, z, c), atol=1e-4, rtol=0)
    assert config.classes == ("a", "b") and config.size == 16 and config.batch_size == 4

def test_more_epochs_go_on(data, tmp_path):
    "Catches a run that may not go on although nothing in it depends on its end."
    train_stylegan2(data, CONFIG, str(tmp_path), epochs=1, progress="")
    assert train_stylegan2(data, CONFIG, str(tmp_path), epochs=1.5, resume=True, progress="").step == 9

def test_grey_images():
    "Catches one channel trained in [0,1] and drawn in [-1,1]."
    dark = as_image_data(np.full((8, 16, 16, 1), 10, np.uint8), labels=np.zeros(8, int), classes=["a"])
    run = train_stylegan2(dark, CONFIG | dict(classes=[], pipe="none", p=0.), progress="")
    images = draw_stylegan2(run.ema["G"].average, torch.randn(3, 8))
    assert images.shape == (3, 1, 16, 16) and 0 <= images.min() and images.max() <= 1

def test_discriminator_sees_augmented_images_only(data, monkeypatch):
    "Catches a discriminator that is shown a real or a generated image as it is: the generator would learn the augmentation."
    seen, augment, score = set(), Augment.forward, Discriminator.forward
    kept, judged = [], []
    monkeypatch.setattr(Augment, "forward", lambda self, x: (out := augment(self, x), seen.add(id(out)), kept.append(out))[0])
    monkeypatch.setattr(Discriminator, "forward", lambda self, x, labels=None: (judged.append(id(x) in seen), score(self, x, labels))[1])
    train_stylegan2(data, CONFIG | dict(p=1., epochs=.5), progress="")
    assert judged and all(judged)

@pytest.mark.parametrize("wrong, message", [(dict(pipe="colour"), "pipe='colour'"), (dict(p=-.1), "p=-0.1"),
                                            (dict(target=-1.1), "target=-1.1")])
def test_bad_settings(wrong, message, data):
    "Catches settings that would be found only in the middle of a run."
    with pytest.raises(ParameterError, match=message): train_stylegan2(data, CONFIG | wrong, progress="")
