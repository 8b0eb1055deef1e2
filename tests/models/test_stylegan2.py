"StyleGAN2 and its augmentation: weights from elsewhere, bad input, runs that are killed, lazy terms at their turn."
import numpy as np
import pytest
import torch

from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.core.checks import ParameterError
from medgan.training.checkpoints import CheckpointError
from medgan.models.stylegan2_augment import AdaptiveP, Augment
from medgan.models.stylegan2_train import build_stylegan2, draw_stylegan2, load_stylegan2, train_stylegan2
from medgan.models.stylegan2 import Discriminator, Generator, preset
from medgan.models.stylegan2_weights import export_weights, import_weights, read_tensors

CONFIG = preset("laptop", 16, 4) | dict(size=16, channels=3, classes=["a", "b"], z_dim=8, w_dim=8, base=128, most=8, pipe="bgc", p=None, target=.6, ada_kimg=.1, pl_weight=2., mixing=.9,
                                        mirror=True, precision="no", seed=0)

def noise(n=24, seed=0, size=16, channels=3): return as_image_data(np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8), labels=np.arange(n) % 2, classes=["a", "b"])

@pytest.fixture(scope="module")
def data(): return noise()

def names_of(size, classes):
    "The names in a state dict of NVIDIA's generator and discriminator, from their release."
    sizes = [2**i for i in range(2, size.bit_length())]
    G = ["mapping.w_avg"] + ["mapping.embed.weight", "mapping.embed.bias"]*bool(classes) + [f"mapping.fc{i}.{p}" for i in range(2) for p in ("weight", "bias")]
    for s in sizes:
        G += [f"synthesis.b{s}.resample_filter"] + ["synthesis.b4.const"]*(s == 4)
        for layer in ("conv0",)*(s > 4) + ("conv1",):
            G += [f"synthesis.b{s}.{layer}.{p}" for p in ("weight", "bias", "noise_strength", "noise_const", "resample_filter", "affine.weight", "affine.bias")]
        G += [f"synthesis.b{s}.torgb.{p}" for p in ("weight", "bias", "affine.weight", "affine.bias")]
    D = [f"mapping.{m}.{p}" for m in ["embed"] + [f"fc{i}" for i in range(8)] for p in ("weight", "bias")]*bool(classes)
    for s in sizes[1:]:
        D += [f"b{s}.resample_filter", f"b{s}.skip.weight", f"b{s}.skip.resample_filter"]
        D += [f"b{s}.{layer}.{p}" for layer in ("fromrgb",)*(s == size) + ("conv0", "conv1") for p in ("weight", "bias", "resample_filter")]
    return G, D + [f"b4.{layer}.{p}" for layer in ("conv", "fc", "out") for p in ("weight", "bias")] + ["b4.conv.resample_filter"]

@pytest.mark.parametrize("classes", [0, 3])
def test_names_of_weights(classes, tmp_path):
    "Catches a weight that NVIDIA's networks do not know, or miss, and a file that does not give it back."
    nets = Generator(16, 3, classes, 8, 8, 128, 8), Discriminator(16, 3, classes, 128, 8)
    for net, names in zip(nets, names_of(16, classes)):
        state = export_weights(net, str(tmp_path/"w.safetensors"))
        assert sorted(state) == sorted(names)
        fresh = type(net)(16, 3, classes, **(dict(z_dim=8, w_dim=8) if type(net) is Generator else {}), base=128, most=8)
        import_weights(fresh, read_tensors(tmp_path/"w.safetensors"))
        assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), net.state_dict().values()))

def test_files_that_are_refused(tmp_path):
    "Catches a reader that opens pickles, and one that dies of a damaged file without naming it."
    class Evil:
        def __reduce__(self): return (print, ("ran",))
    torch.save(dict(a=Evil()), tmp_path/"evil.pt")
    torch.save([1], tmp_path/"list.pt")
    (tmp_path/"short.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    (tmp_path/"short.pt").write_bytes(b"PK\3\4")
    for name, message in (("evil.pt", "more than tensors"), ("list.pt", "no state dict"), ("short.safetensors", "cut short"), ("short.pt", "cut short"), ("gone.pt", "not there"), ("net.pkl", "could run code")):
        with pytest.raises(CheckpointError, match=message): read_tensors(tmp_path/name)

@pytest.mark.parametrize("p", [None, .3])
def test_killed_run_goes_on(p, data, goes_on):
    "Catches anything that training depends on and that the checkpoint lacks: p, the signs since it last moved, the mean path length, the average of the weights."
    whole = goes_on(lambda folder, **options: train_stylegan2(data, CONFIG | dict(p=p, target=-1.1), 4, folder, progress="", checkpoint_every=7, log_every=1, **options))
    assert (whole["modules"]["augment"]["p"] > (p or 0)) == (p is None) and whole["extra"]["path"]["mean"] > 0 and whole["extra"]["last"]["r1"] > 0

def test_wrong_data(data):
    "Catches images of another size, channels or classes than the networks', found only by an error in the middle of a step."
    one_only = as_image_data(data.images, labels=np.zeros(24, int), classes=["a", "b"])
    for other, message in ((noise(size=32), "32 px"), (noise(size=8), "8 px, the networks of 16 px"), (noise(channels=1), "1 channel"), (data.select(["a"]), "classes"), (one_only, "no image of the classes b")):
        with pytest.raises(DataError, match=message): train_stylegan2(other, CONFIG, 1, progress="")
    with pytest.raises(DataError, match="label"): as_image_data(data.images, labels=np.arange(24) % 2*2, classes=["a", "b"])       # 0 and 2 are not 0..n-1

def test_more_classes_than_the_checkpoint(data):
    "Catches weights of two classes taken for three, and labels that a generator does not have."
    G, D = build_stylegan2(CONFIG)
    start = export_weights(G), export_weights(D)
    three = as_image_data(data.images, labels=np.arange(24) % 3, classes=["a", "b", "c"])
    with pytest.raises(CheckpointError, match="another architecture"): train_stylegan2(three, CONFIG | dict(classes=["a", "b", "c"]), 1, start=start, progress="")
    with pytest.raises(ValueError, match="labels"): draw_stylegan2(G, torch.randn(2, 8))
    with pytest.raises(ValueError, match="labels"): draw_stylegan2(G, torch.randn(2, 8), torch.tensor([0, 2]))

def test_weights_of_other_widths():
    "Catches a state dict that is read in part, and torch's own list of hundreds of lines."
    wide, narrow = (Generator(16, 3, 2, 8, 8, base=base, most=16) for base in (256, 128))
    with pytest.raises(CheckpointError, match="Generator is another architecture.*the first is synthesis.b16"): import_weights(narrow, export_weights(wide))
    with pytest.raises(CheckpointError, match="Discriminator is another architecture"): import_weights(Discriminator(16, 3, 2, 128, 16), export_weights(Discriminator(16, 3, 2, 256, 16)))

def test_transfer_begins_where_the_other_ended(data, tmp_path):
    "Catches weights that are read and then drawn anew, and an average that does not start from them."
    run = train_stylegan2(data, CONFIG, 1, str(tmp_path/"a"), progress="")
    G, config = load_stylegan2(tmp_path/"a")
    start = export_weights(G), export_weights(run.modules["D"])
    z, c = torch.randn(4, 8), torch.tensor([0, 1, 0, 1])
    still = train_stylegan2(data, CONFIG | dict(lr=1e-12), .1, start=start, progress="")
    torch.testing.assert_close(draw_stylegan2(still.ema["G"].average, z, c), draw_stylegan2(G, z, c), atol=1e-4, rtol=0)
    assert config["classes"] == ["a", "b"]

def test_grey_images(tmp_path):
    "Catches one channel trained in [0,1] and drawn in [-1,1]."
    dark = as_image_data(np.full((8, 16, 16, 1), 10, np.uint8), labels=np.zeros(8, int), classes=["a"])
    run = train_stylegan2(dark, CONFIG | dict(channels=1, classes=[], pipe="none", p=0.), 1, progress="")
    images = draw_stylegan2(run.ema["G"].average, torch.randn(3, 8))
    assert images.shape == (3, 1, 16, 16) and 0 <= images.min() and images.max() <= 1

def test_discriminator_sees_augmented_images_only(data, monkeypatch):
    "Catches a discriminator that is shown a real or a generated image as it is: the generator would learn the augmentation."
    seen, augment, score = set(), Augment.forward, Discriminator.forward
    monkeypatch.setattr(Augment, "forward", lambda self, x: (out := augment(self, x), seen.add(id(out)), kept.append(out))[0])
    kept, judged = [], []
    monkeypatch.setattr(Discriminator, "forward", lambda self, x, labels=None: (judged.append(id(x) in seen), score(self, x, labels))[1])
    train_stylegan2(data, CONFIG | dict(p=1.), .5, progress="")
    assert judged and all(judged)

@pytest.mark.parametrize("wrong, message", [(dict(pipe="colour"), "pipe='colour'"), (dict(p=-.1), "p=-0.1")])
def test_bad_settings(wrong, message, data):
    "Catches settings that would be found only in the middle of a run."
    with pytest.raises(ParameterError, match=message): train_stylegan2(data, CONFIG | wrong, 1, progress="")

@pytest.mark.parametrize("network", [Generator, Discriminator])
@pytest.mark.parametrize("wrong, message", [(dict(size=24), "size=24: must be a power of two"), (dict(size=8), "size=8"), (dict(size=32, channels=5), "channels=5"), (dict(size=32, n_classes=-1), "n_classes=-1")])
def test_bad_networks(network, wrong, message):
    "Catches networks of a size that no chain of halvings reaches, with an error from deep inside torch or none at all."
    with pytest.raises(ParameterError, match=message): network(**wrong)

def test_p_keeps_its_pace():
    "Catches p that moves by steps and not by images: with another batch the run would be another."
    for batch in (2, 8):
        adapt = AdaptiveP(Augment("bg"), kimg=1.)
        for _ in range(96//batch): adapt(torch.ones(batch))
        assert adapt.augment.p.item() == pytest.approx(.096)
