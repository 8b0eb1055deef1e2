"A run of a projected GAN: killed and gone on, what it keeps and what it leaves alone, images that fit and images that do not."
import numpy as np
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.models.projected_gan import (
    ProjectedGANConfig,
    build_looks,
    build_projected_gan,
    draw_projected_gan,
    generate_projected_gan,
    load_projected_gan,
    projected_step,
    train_projected_gan,
)
from medgan.networks import imagenet
from medgan.networks.augmentation import DifferentiableAugmentation
from medgan.networks.projection import FeatureProjection, MultiScaleDiscriminator
from medgan.training.checkpoints import checkpoints, load_checkpoint

CONFIG = dict(batch_size=4, z_dim=8, width=2, feature_size=32, mix_width=4, d_most=16, weights="random", epochs=1)

def noise(n=16, seed=0, size=32, channels=3):
    images = np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)
    return as_image_data(images, labels=np.arange(n) % 2, classes=["a", "b"])

@pytest.fixture(scope="module")
def data(): return noise()

@pytest.mark.parametrize("changes", [dict(), dict(generator="stylegan2", weights="none", mirror=True)])
def test_killed_run_goes_on(changes, data, goes_on):
    "Catches what training depends on and the checkpoint lacks: singular vectors, batch norm's averages, the mean style, other projections."
    often = dict(progress="", checkpoint_every=3, log_every=1)
    goes_on(lambda folder, **options: train_projected_gan(data, CONFIG | changes | dict(epochs=3), folder, **often, **options))

def test_feature_network_stays(data, tmp_path):
    "Catches a feature network that is trained, or kept with the weights, and projections that follow from anything but their seed."
    looks = []
    class Noted(FeatureProjection):
        def __init__(self, *args):
            super().__init__(*args)
            looks.append(self)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medgan.models.projected_gan.FeatureProjection", Noted)
        train_projected_gan(data, CONFIG, str(tmp_path), progress="")
    fresh = build_looks(ProjectedGANConfig(**CONFIG | dict(size=32))).state_dict()
    assert len(looks) == 1 and all(torch.equal(value, fresh[name]) for name, value in looks[0].state_dict().items())
    state, _ = load_checkpoint(checkpoints(tmp_path)[-1])
    assert set(state["modules"]) == {"G", "D"} and not any("levels" in name or "across" in name for name in state["modules"]["D"])

def test_feature_seed_and_weights_matter(data):
    "Catches projections that are drawn from the run's seed, or always the same, and weights that are not what was asked for."
    x = data.read(range(2))["image"]
    def seen(**changes): return build_looks(ProjectedGANConfig(**CONFIG | dict(size=32) | changes))(x)[0]
    assert torch.equal(seen(), seen(seed=5)) and not torch.equal(seen(), seen(feature_seed=1))
    assert not torch.equal(seen(), seen(weights="imagenet")) and torch.equal(seen(weights="none"), x)

def test_each_network_has_its_turn(data):
    "Catches a discriminator that learns to please the generator, and a generator that is trained by the discriminators' loss."
    config = ProjectedGANConfig(**CONFIG | dict(size=32, classes=("a", "b")))
    G, D = build_projected_gan(config)
    moved = []
    class Noting:
        modules, optimizers = dict(G=G, D=D), dict(G="G", D="D")
        def update(self, name, loss):
            for net in (G, D): net.zero_grad(set_to_none=True)
            loss.backward()
            moved.append((name, *(any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters()) for net in (G, D))))
    terms = projected_step(Noting(), config, build_looks(config))(data.read(range(4)))
    assert moved == [("G", True, False), ("D", False, True)] and set(terms) == {"loss_G", "loss_D", "sign"}

def test_discriminators_see_augmented_images_only(data, monkeypatch):
    "Catches a discriminator that is shown a real or a generated image as it is: the generator would learn the augmentation."
    seen, augment, look = set(), DifferentiableAugmentation.forward, FeatureProjection.forward
    kept, looked = [], []
    monkeypatch.setattr(DifferentiableAugmentation, "forward", lambda self, x: (y := augment(self, x), seen.add(id(y)), kept.append(y))[0])
    monkeypatch.setattr(FeatureProjection, "forward", lambda self, x: (looked.append(id(x) in seen), look(self, x))[1])
    train_projected_gan(data, CONFIG, progress="")
    assert len(looked) == 2*4 and all(looked)

def test_parts_of_the_augmentation(data, monkeypatch):
    "Catches a switch that switches another part, or none."
    given, make = [], DifferentiableAugmentation
    monkeypatch.setattr("medgan.models.projected_gan.DifferentiableAugmentation", lambda *parts: (given.append(parts), make(*parts))[1])
    for parts in ((True, False, False), (False, True, False), (False, False, True)):
        train_projected_gan(data, CONFIG | dict(zip(("colour", "translation", "cutout"), parts)), epochs=.25, progress="")
    assert given == [(True, False, False), (False, True, False), (False, False, True)]

def test_labels_reach_both_networks(data, monkeypatch):
    "Catches fakes of other classes than the batch's, and a discriminator that is told other labels than the generator."
    told, judge = [], MultiScaleDiscriminator.forward
    def noted(self, features, labels=None):
        told.append(labels.tolist())
        return judge(self, features, labels)
    monkeypatch.setattr(MultiScaleDiscriminator, "forward", noted)
    run = train_projected_gan(data, CONFIG, epochs=.25, progress="")
    assert run.step == 1 and len(told) == 2 and told[0]*2 == told[1]

def test_mean_style_is_learnt(data):
    "Catches a generator of StyleGAN2 that could not be truncated, since nobody tells its mean style."
    run = train_projected_gan(data, CONFIG, generator="stylegan2", progress="")
    assert run.modules["G"].mapping.w_avg.abs().sum() > 0 and run.ema["G"].average.mapping.w_avg.abs().sum() > 0

def test_loads_without_weights_of_imagenet(data, tmp_path, monkeypatch):
    "Catches a generator that cannot be used where the extra is not installed."
    run = train_projected_gan(data, CONFIG | dict(weights="imagenet"), str(tmp_path), progress="")
    def missing(name): raise imagenet.ImageNetWeightsError(name)
    monkeypatch.setattr(imagenet, "imagenet_weights", missing)
    G, config = load_projected_gan(str(tmp_path))
    z, labels = torch.randn(3, 8), torch.tensor([0, 1, 1])
    torch.testing.assert_close(draw_projected_gan(G, z, labels), draw_projected_gan(run.ema["G"].average, z, labels))
    assert config.weights == "imagenet"
    assert generate_projected_gan(str(tmp_path), 2, ["b", "a"], out_dir=str(tmp_path/"images")).shape == (4, 3, 32, 32)

def test_missing_extra(data, tmp_path, monkeypatch):
    "Catches an error that names no remedy, and a run folder that is begun before."
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *args: None)
    with pytest.raises(ImportError, match=r'pip install "medgan\[imagenet\]"'):
        train_projected_gan(data, CONFIG | dict(weights="imagenet"), str(tmp_path/"run"), progress="")
    assert not (tmp_path/"run").exists()

def test_grey_images_and_one_class():
    "Catches one channel trained in [0,1] and drawn in [-1,1], and a single class that the generator must be asked for."
    dark = as_image_data(np.full((8, 32, 32, 1), 10, np.uint8), labels=np.zeros(8, int), classes=["a"])
    run = train_projected_gan(dark, CONFIG, progress="")
    images = draw_projected_gan(run.ema["G"].average, torch.randn(3, 8))
    assert images.shape == (3, 1, 32, 32) and 0 <= images.min() and images.max() <= 1 and run.modules["G"].n_classes == 0

def test_wrong_data(data):
    "Catches images that no network fits, found only by an error in the middle of a step."
    oblong = as_image_data(np.zeros((4, 32, 64, 1), np.uint8))
    one_only = as_image_data(data.images, labels=np.zeros(16, int), classes=["a", "b"])
    for other, error, message in ((noise(size=48), ParameterError, "size=48: must be one of 32, 64, 128, 256"),
                                  (noise(n=3), ParameterError, "batch_size=4: the training set has only 3 images"),
                                  (one_only, DataError, "no image of the classes b"), (oblong, DataError, "32 x 64 px")):
        with pytest.raises(error, match=message): train_projected_gan(other, CONFIG, progress="")

@pytest.mark.parametrize("wrong, message", [(dict(feature_size=16), "feature_size=16: must be None or a whole number from 32 to 512"),
                                            (dict(n_levels=5), "n_levels=5"), (dict(network="lite9"), "network='lite9'"),
                                            (dict(colour=2), "colour=2: must be True or False")])
def test_bad_settings(wrong, message, data):
    "Catches settings that would be found only in the middle of a run."
    with pytest.raises(ParameterError, match=message): train_projected_gan(data, CONFIG | wrong, progress="")
