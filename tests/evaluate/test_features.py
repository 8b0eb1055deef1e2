"The shipped extractors are what their cards say, foreign weights run no code, and features do not depend on who computes them."
import pickle
import warnings

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file

from medgan.data.images import as_image_data, load_data
from medgan.evaluate.classifiers import classifier_scores, predict
from medgan.evaluate.features import (
    SHIPPED,
    Extractor,
    ExtractorError,
    FeatureCNN,
    feature_card,
    image_features,
    load_extractor,
    random_views,
    weights_file,
)
from medgan.training.checkpoints import CheckpointError, load_checkpoint

@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name):
    "Catches weights that are missing, too large, not plain safetensors, or without a full card."
    file, card = weights_file(name), feature_card(name)
    assert file.stat().st_size < 5e6
    with safe_open(file, "pt") as opened: assert opened.metadata()["medgan"].startswith('{"format": "medgan-2"')
    assert card["low"] < card["balanced_accuracy"] < card["high"] and 1/len(card["classes"]) < card["low"]
    assert {"data", "fingerprint", "split", "seed", "train_images", "test_images", "epochs", "auc"} <= set(card)
    extractor = load_extractor(name)
    assert extractor.name == card["name"] and extractor.channels == card["channels"]

@pytest.mark.parametrize("name", SHIPPED)
def test_real_card(name, real_data, cache):
    "Catches a card that was not measured with these weights on this split."
    state, card = load_checkpoint(weights_file(name))
    net = FeatureCNN(card["channels"], len(card["classes"]), card["width"])
    net.load_state_dict(state["net"])
    data = load_data(SHIPPED[name][1], str(real_data), 64)
    test = data.split(seed=card["seed"])["test"]
    assert data.fingerprint == card["fingerprint"] and len(test) == card["test_images"]
    scores = classifier_scores(predict(net, test), test.labels.numpy())
    assert scores["balanced_accuracy"] == pytest.approx(card["balanced_accuracy"], abs=5e-3)

def test_grey_and_colour():
    "Catches grey images in [0,1] that reach a colour network unscaled, and colour images cut down to one channel."
    phantom = load_data("phantom", size=32, n=30)
    grey = phantom.images.mean(-1, keepdims=True).astype(np.uint8)
    skin = load_extractor("skin")
    as_grey, as_rgb = (image_features(as_image_data(x), skin, keep=False) for x in (grey, np.repeat(grey, 3, -1)))
    np.testing.assert_allclose(as_grey, as_rgb, rtol=1e-3, atol=1e-4)
    with pytest.raises(ExtractorError, match="takes grey images"): image_features(phantom, load_extractor("brain"), keep=False)

@pytest.mark.parametrize("fingerprint", ["../../../outside", "/tmp/outside", "a:b"])
def test_features_are_kept_in_their_folder(cache, tmp_path, fingerprint):
    "Catches an extractor of somebody's own whose name for its weights leads out of the cache."
    own = Extractor("own", 3, lambda x: x.mean((2, 3)), fingerprint)
    a = image_features(load_data("phantom", size=32, n=8), own)
    assert [p.parent for p in tmp_path.rglob("*") if p.is_file()] == [cache/"features"]
    assert np.array_equal(a, image_features(load_data("phantom", size=32, n=8), own))

def test_kept_features(cache):
    "Catches features of another data set, size or network that are taken for these."
    a, b = (load_data("phantom", size=32, n=40, phantom_seed=s) for s in (0, 1))
    skin, control = load_extractor("skin"), load_extractor("torchvision:squeezenet1_0", "random")
    first = image_features(a, skin)
    assert not np.array_equal(first, image_features(b, skin)) and image_features(a, control).shape != first.shape
    larger = load_data("phantom", size=64, n=40)
    assert np.array_equal(first, image_features(a, skin)) and not np.array_equal(first, image_features(larger, skin))

class Harmful:
    "Runs code when it is unpickled."
    def __reduce__(self): return (exec, ("raise SystemExit('code ran')",))

@pytest.mark.parametrize("damage", [lambda p: np.save(p, np.load(p)[:5]), lambda p: np.save(p, np.load(p)*np.nan),
                                    lambda p: np.save(p, np.array([Harmful()]), allow_pickle=True), lambda p: p.write_bytes(b""),
                                    lambda p: p.write_bytes(p.read_bytes()[:-8]), lambda p: p.write_bytes(b"\x93NUMPY")],
                         ids=["rows gone", "NaN", "pickle", "empty", "cut", "half a header"])
def test_damaged_features(cache, damage):
    "Catches kept features of fewer images, cut short or full of NaN that are taken, and a file that runs code."
    data, skin = load_data("phantom", size=32, n=40), load_extractor("skin")
    first = image_features(data, skin)
    file, = (cache/"features").iterdir()
    damage(file)
    with pytest.warns(UserWarning, match=f"{file.name} is damaged .*: the features are computed again"):
        assert np.array_equal(image_features(data, skin), first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(image_features(data, skin), first)

@pytest.mark.parametrize("make,message", [
    (lambda p: "", "is no file"), (lambda p: str(p/"missing.pth"), "is no file"),
    (lambda p: torch.save({"conv1.weight": Harmful()}, p/"bad.pth") or str(p/"bad.pth"), "which is never run"),
    (lambda p: (p/"cut.safetensors").write_bytes(b"\x08\x00") and str(p/"cut.safetensors"), "cut short"),
    (lambda p: (p/"bad.pth").write_bytes(pickle.dumps(Harmful())) and str(p/"bad.pth"), "which is never run")])
def test_bad_weights(make, message, tmp_path):
    with pytest.raises(ExtractorError, match=message): load_extractor("torchvision:squeezenet1_0", make(tmp_path))

def test_foreign_weights(tmp_path):
    "Catches weights from a file that are not used, or silently used in part."
    net = torchvision.models.squeezenet1_0()
    save_file(net.state_dict(), tmp_path/"mine.safetensors")
    def squeezenet(weights): return load_extractor("torchvision:squeezenet1_0", weights)
    extractor = squeezenet(str(tmp_path/"mine.safetensors"))
    assert extractor.name == "squeezenet1_0, mine, 224 px" and extractor.fingerprint != squeezenet("random").fingerprint
    save_file({k: v for k, v in net.state_dict().items() if k != "features.0.bias"}, tmp_path/"part.safetensors")
    with pytest.raises(CheckpointError, match="features.0.bias"): squeezenet(str(tmp_path/"part.safetensors"))

@pytest.mark.parametrize("name,message", [
    ("retina", "must be one of 'skin', 'brain'"), ("timm:resnet999", "no such model"),
    ("torchvision:resnet999", "no such model")])
def test_unknown_extractor(name, message):
    with pytest.raises(ExtractorError, match=message): load_extractor(name)

def test_inception_names_its_file(tmp_path):
    "Catches a missing file that is not named, and another file that is taken for it."
    with pytest.raises(ExtractorError, match="weights-inception-2015-12-05-6726825d.pth.*SHA-256 6726825d0af5f729"):
        load_extractor("inception", str(tmp_path/"no"))
    (tmp_path/"wrong.pth").write_bytes(b"1")
    with pytest.raises(ExtractorError, match="has SHA-256 6b86b273"): load_extractor("inception", str(tmp_path/"wrong.pth"))

def test_random_views_turn():
    "Catches an angle in radians, and images that are turned without being mirrored in: corners would be black."
    x = torch.ones(50, 1, 16, 16)
    assert torch.allclose(random_views(x, 180), x, atol=1e-5)
    bar = torch.zeros(200, 1, 33, 33)
    bar[:, :, :, 15:18] = 1
    torch.manual_seed(0)
    lying = random_views(bar, 90, 0, 0)[:, 0, 16].sum(1)                 # a row through the middle: a bar that lies fills it
    assert lying.max() > 20 and lying.min() < 5
    assert random_views(bar, 5, 0, 0)[:, 0, 16].sum(1).max() < 6
