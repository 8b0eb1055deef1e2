"Dice and its loss on known answers; a segmenter that is trained the same twice, keeps its best epoch and refuses bad data."
import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import medgan.evaluate.segmentation as segmentation
from medgan.core.checks import ParameterError
from medgan.data.images import ImageData, load_data
from medgan.evaluate.segmentation import dice_score, fit_segmenter, predict_masks
from medgan.networks.augmentation import random_turns
from medgan.networks.losses import dice_loss
from medgan.networks.unet import SegmentationUNet
from medgan.training.checkpoints import CheckpointError, same_state
from medgan.training.loop import NonFiniteLoss, set_seed

QUICK = dict(epochs=1, batch_size=8, progress="")

def toy(seed=0, n=24, size=16, channels=3, masks=True):
    "Noise with a bright rectangle, always left above, and its mask; the ids of two seeds differ."
    rng = np.random.default_rng(seed)
    images, mask = rng.integers(0, 120, (n, size, size, channels), dtype=np.uint8), np.zeros((n, size, size), bool)
    for i, (h, w) in enumerate(rng.integers(4, size - 4, (n, 2))): mask[i, 1:h, 1:w] = True
    images[mask] += 120
    table = pd.DataFrame(dict(id=[f"{seed}-{i}" for i in range(n)], dx="a", label=0, group=[f"toy{seed}/{i}" for i in range(n)]))
    return ImageData("toy", images, mask if masks else None, table, ["a"], f"toy-{seed}")

def unet(seed=0, channels=3, width=4, depth=2):
    set_seed(seed)
    return SegmentationUNet(channels, width, depth)

def truth_of(data): return data.masks[data.rows]

# ---- the network

@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 8)])
@pytest.mark.parametrize("depth", [1, 3])
def test_shapes(channels, size, depth):
    "Catches levels that do not meet again, and a net that only takes squares."
    logits = unet(0, channels, 4, depth)(torch.rand(2, channels, *size))
    assert logits.shape == (2, 1, *size) and logits.dtype == torch.float32

@pytest.mark.parametrize("shape, message", [
    ((2, 1, 16, 16), r"shape \(2, 1, 16, 16\); the net takes \(B,3,H,W\)"), ((3, 16, 16), "the net takes"),
    ((2, 3, 16, 18), "16 x 18 px; both sides must be divisible by 4"),
    ((2, 3, 10, 16), "the net halves them 2 times")])
def test_images_it_does_not_take(shape, message):
    "Catches torch's error from somewhere inside."
    with pytest.raises(ValueError, match=message): unet()(torch.zeros(shape))
    if len(shape) == 4:
        with pytest.raises(ValueError, match=message): predict_masks(unet(), torch.zeros(shape))

@pytest.mark.parametrize("name, value", [("channels", 0), ("width", 1.5), ("depth", 0), ("depth", "4")])
def test_bad_network(name, value):
    "Catches a value that ends in a TypeError or in a net without a level."
    with pytest.raises(ParameterError, match=f"{name}="): SegmentationUNet(**{name: value})

def test_skips_are_used():
    "Catches a decoder that forgets what the same level saw: a pixel's own value must reach its logit past the coarse levels."
    net = unet(depth=3).eval()
    for block in net.up: nn.init.zeros_(block[1].weight)                     # nothing comes from below
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    gradient, = torch.autograd.grad(net(x)[0, 0, 8, 8], x)
    assert gradient.abs().sum() > 0

# ---- Dice

def test_dice_by_definition():
    "Catches an intersection over union, a sum over the batch, and pixels that count twice: 2|P and T| / (|P| + |T|) in sets."
    rng = np.random.default_rng(0)
    p, t = rng.random((2, 20, 7, 9)) < rng.random((2, 20, 1, 1))
    pixels = lambda mask: set(zip(*np.nonzero(mask)))
    by_sets = [2*len(pixels(a) & pixels(b))/(len(pixels(a)) + len(pixels(b))) for a, b in zip(p, t)]
    np.testing.assert_allclose(dice_score(p, t), by_sets)
    np.testing.assert_array_equal(dice_score(torch.tensor(p), torch.tensor(t)), dice_score(t, p))

def test_dice_of_large_masks():
    "Catches areas that are added in uint8 or bool."
    full = np.ones((1, 512, 512), bool)
    half = full.copy()
    half[:, :256] = False
    assert dice_score(full, half).item() == pytest.approx(2/3) and dice_score(full, full).item() == 1

@pytest.mark.parametrize("predicted, truth, message", [
    (np.zeros((2, 4, 4)), np.zeros((2, 4, 4), bool), "predicted: masks are bool"),
    (np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), np.uint8), "truth: masks are bool"),
    (np.zeros((2, 1, 4, 4), bool), np.zeros((2, 4, 4), bool), r"\(N,H,W\), got bool \(2, 1, 4, 4\)"),
    (np.zeros((1, 4, 4), bool), np.zeros((2, 4, 4), bool), "must be equal")])
def test_dice_refuses(predicted, truth, message):
    "Catches probabilities, masks of 0 and 255, and one mask that is broadcast over all."
    with pytest.raises(ValueError, match=message): dice_score(predicted, truth)

def test_loss_by_hand():
    "Catches squares below, a smoothing that is only above, and a loss over the batch instead of each image."
    logits, mask = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 1, 4, 5, dtype=torch.bool)
    mask[0, 0, :2] = mask[1, 0, 1, 1] = True
    p, m = logits.sigmoid().numpy(), mask.numpy()
    by_hand = np.mean([1 - (2*p[i][m[i]].sum() + .5)/(p[i].sum() + m[i].sum() + .5) for i in range(3)])
    assert dice_loss(logits, mask, smooth=.5).item() == pytest.approx(by_hand, abs=1e-5)
    assert dice_loss(logits, mask.float(), smooth=.5).item() == dice_loss(logits, mask, smooth=.5).item()

def test_loss_refuses():
    "Catches a mask (B,H,W) that is broadcast to (B,B,H,W)."
    with pytest.raises(ValueError, match="must be equal"): dice_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))

# ---- flips and turns

def test_turns_move_all_alike():
    "Catches an image that is turned without its mask, and turns that mix images up or change a value."
    set_seed(0)
    x = torch.rand(64, 3, 8, 8)
    image, mask = random_turns(x, x[:, :1] > .5)
    assert torch.equal(image[:, :1] > .5, mask) and mask.dtype == torch.bool
    assert torch.equal(image.flatten(2).sort(2)[0], x.flatten(2).sort(2)[0]) and not torch.equal(image, x)
    assert len({tuple(i.flatten().tolist()) for i in random_turns(x[:1].expand(100, -1, -1, -1))[0]}) == 8

@pytest.mark.parametrize("tensors", [
    (torch.zeros(2, 3, 4, 6),), (torch.zeros(2, 3, 4, 4), torch.zeros(3, 1, 4, 4)), (torch.zeros(2, 4, 4),)])
def test_turns_refuse(tensors):
    "Catches a rectangle that is turned into another shape for some images only."
    with pytest.raises(ValueError, match="must be squares"): random_turns(*tensors)

# ---- training

def test_learns_where():
    "Catches a mask that is not moved with its image: the rectangle, always left above, must be found wherever it is turned to."
    train, val = toy(0, 48), toy(1)
    net = unet()
    history = fit_segmenter(net, train, val, epochs=8, lr=1e-2, batch_size=8, progress="")
    assert history.val_dice.max() > .9 and history.loss.iloc[-1] < history.loss.iloc[0]
    assert np.allclose(history.loss, history.dice_loss + history.cross_entropy)
    turned = val.read(np.arange(len(val)))["image"].rot90(2, (2, 3))
    assert dice_score(predict_masks(net, turned), truth_of(val)[:, ::-1, ::-1]).mean() > .9

def test_same_seed_same_weights():
    "Catches order, flips or turns that no seed determines, and a seed that changes nothing."
    def trained(seed):
        net = unet()
        torch.rand(seed + 7)                                                 # somebody else's random numbers
        return fit_segmenter(net, toy(0), toy(1), **QUICK | dict(epochs=2), seed=seed), net.state_dict()
    (a, net_a), (b, net_b), (_, other) = trained(0), trained(0), trained(1)
    assert same_state(net_a, net_b) and a.equals(b) and not same_state(net_a, other)

def test_validation_dice_decides(monkeypatch):
    "Catches another column that decides which epoch is kept, and epochs or patience that are not handed on to `keep_best`."
    scores, seen = iter([.2, .6, .4, .6, .5, .9]), []
    def predicted(net, data):
        seen.append({k: v.clone() for k, v in net.state_dict().items()})
        return predict_masks(net, data)
    monkeypatch.setattr(segmentation, "predict_masks", predicted)
    monkeypatch.setattr(segmentation, "dice_score", lambda p, t: np.full(len(p), next(scores)))
    net = unet()
    history = fit_segmenter(net, toy(0), toy(1), **QUICK | dict(epochs=6), patience=3)
    assert history.val_dice.tolist() == pytest.approx([.2, .6, .4, .6, .5]) and history.epoch.tolist() == [1, 2, 3, 4, 5]
    assert same_state(net.state_dict(), seen[1]) and not same_state(seen[1], seen[4])

def test_turned_in_training():
    "Catches a training that leaves `augment` out, here one that shows nothing but lesions, and another default than flips and turns."
    def all_lesion(image, mask): return image, torch.ones_like(mask)
    net = unet()
    fit_segmenter(net, toy(0), toy(1), **QUICK | dict(epochs=4), lr=1e-2, patience=4, augment=all_lesion)
    assert predict_masks(net, toy(1)).mean() > .9
    assert inspect.signature(fit_segmenter).parameters["augment"].default is random_turns

def test_score_is_of_the_whole_validation_part():
    "Catches a score of the first batch, of another part's masks (a subset has rows of its own), or of other weights than those kept."
    val = toy(1, 90).subset(np.arange(10, 85)[::-1])
    net = unet()
    history = fit_segmenter(net, toy(0), val, **QUICK | dict(epochs=4), lr=1e-2)
    scores = dice_score(predict_masks(net, val), truth_of(val))
    assert scores.mean() == pytest.approx(history.val_dice.max(), abs=1e-12) and scores.mean() > .3 and scores.std() > .01

def test_one_channel():
    "Catches a net or a turn that takes colour for granted: a brain slice has one channel in [0,1]."
    train, val = toy(0, channels=1), toy(1, channels=1)
    net = unet(channels=1)
    fit_segmenter(net, train, val, **QUICK)
    assert predict_masks(net, val).shape == (24, 16, 16)

def test_small_training_part():
    "Catches a batch that is larger than the training part."
    assert len(fit_segmenter(unet(), toy(0, 5), toy(1), epochs=1, batch_size=64, progress="")) == 1

def test_bf16():
    "Catches a loss that half precision cannot take."
    assert np.isfinite(fit_segmenter(unet(), toy(0), toy(1), **QUICK, precision="bf16").to_numpy()).all()

def test_keep_in(tmp_path):
    "Catches a net that is trained again, read without its batch norms, or read for another training."
    path = tmp_path/"new"/"net.safetensors"
    def fit(net, train=0, **changes): return fit_segmenter(net, toy(train), toy(1), **QUICK | changes, keep_in=str(path))
    a, b = unet(0), unet(1)
    first = fit(a)
    before = path.stat().st_mtime_ns
    assert fit(b).equals(first) and same_state(a.state_dict(), b.state_dict()) and path.stat().st_mtime_ns == before
    np.testing.assert_array_equal(predict_masks(a, toy(1)), predict_masks(b, toy(1)))
    for changes, message in ((dict(lr=1e-4), "lr was 0.001, is 0.0001"), (dict(seed=1), "seed was 0, is 1"),
                             (dict(batch_size=4), "batch_size was 8, is 4"), (dict(train=2), "train was 'toy-0', is 'toy-2'")):
        with pytest.raises(CheckpointError, match=message): fit(b, **changes)
    with pytest.raises(CheckpointError, match="net was"): fit(unet(width=8))

# ---- refused

@pytest.mark.parametrize("train, val, message", [
    (toy(0, masks=False), toy(1), "train: toy has no masks"), (toy(0), toy(1, masks=False), "val: toy has no masks"),
    (toy(0), toy(0).subset([3, 5]), r"2 groups \(lesions, patients\) are in the training and in the validation part"),
    (toy(0, channels=1), toy(1, channels=1), r"the net takes \(B,3,H,W\)"), (toy(0), toy(1, channels=1), r"the net takes \(B,3,H,W\)"),
    (toy(0, size=18), toy(1, size=18), "18 x 18 px; both sides must be divisible by 4"),
    (toy(0).subset(np.arange(0)), toy(1), "train: no images"), (toy(0), toy(1).subset(np.arange(0)), "val: no images")],
    ids=["train without masks", "val without masks", "shared", "grey", "val grey", "size", "train empty", "val empty"])
def test_bad_parts(train, val, message):
    "Catches parts that end in another error, or after the first epoch; the net is not touched."
    net = unet()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match=message): fit_segmenter(net, train, val, **QUICK)
    assert same_state(before, net.state_dict())

@pytest.mark.parametrize("name, value", [
    ("epochs", 0), ("epochs", 1.5), ("patience", 0), ("batch_size", 0), ("batch_size", "64"), ("lr", 0), ("lr", float("nan")),
    ("precision", "fp16")])
def test_bad_values(name, value):
    "Catches a value that slips through or ends in a TypeError."
    with pytest.raises(ParameterError, match=f"{name}={value!r}"):
        fit_segmenter(unet(), toy(0), toy(1), **QUICK | {name: value})

def test_diverged_net():
    "Catches a NaN that is trained on, and one that is predicted as an empty mask."
    net = unet()
    with torch.no_grad(): net.output.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteLoss): fit_segmenter(net, toy(0), toy(1), **QUICK)
    with pytest.raises(ValueError, match="the prediction 0 holds NaN"): predict_masks(net, toy(1))
    images = torch.zeros(6, 3, 16, 16)
    images[4, 0, 3, 3] = torch.inf
    with pytest.raises(ValueError, match="the image 4 holds NaN or infinite"): predict_masks(unet(), images, batch_size=3)

# ---- prediction

def test_predict_masks():
    "Catches masks that depend on the batch, on the kind of data, or come in another order; the mode is put back, after errors too."
    net, data = unet(), toy(0)
    images = data.read(np.arange(len(data)))["image"]
    masks = predict_masks(net, data)
    assert net.training and masks.dtype == bool and masks.shape == (24, 16, 16)
    for other, batch_size in ((images, 64), (data, 1), (images, 7)):
        np.testing.assert_array_equal(masks, predict_masks(net, other, batch_size=batch_size))
    np.testing.assert_array_equal(predict_masks(net, data.subset([5, 2])), masks[[5, 2]])
    with pytest.raises(ValueError): predict_masks(net, images[:, :1])
    assert net.training
    net.eval()
    predict_masks(net, data)
    assert not net.training
    with pytest.raises(ValueError, match="no images"): predict_masks(net, images[:0])

def test_threshold():
    "Catches a threshold on logits instead of probabilities, and the wrong side of it."
    net, data = unet(), toy(0)
    with torch.no_grad(): p = net.eval()(data.read(np.arange(len(data)))["image"])[:, 0].sigmoid().numpy()
    for threshold in (.2, .5, float(np.median(p))):
        clear = np.abs(p - threshold) > 1e-4
        np.testing.assert_array_equal(predict_masks(net, data, threshold=threshold)[clear], (p > threshold)[clear])
    assert not predict_masks(net, data, threshold=1).any() and predict_masks(net, data, threshold=0).all()
    for bad in (-.1, 1.5, float("nan")):
        with pytest.raises(ParameterError, match="threshold="): predict_masks(net, data, threshold=bad)

# ---- real images

def test_ham10000(real_data):
    "Catches a protocol that works on drawn lesions only: 600 real images, a minute at most; split by lesion."
    parts = load_data("ham10000", str(real_data), 64).split()
    train = parts["train"].subset(np.random.default_rng(0).permutation(len(parts["train"]))[:600])
    val = parts["val"].subset(np.arange(0, len(parts["val"]), 5))
    assert not set(train.table.group) & set(val.table.group)
    net = unet(width=8, depth=4)
    fit_segmenter(net, train, val, epochs=4, lr=3e-3, batch_size=16, progress="")
    place = np.broadcast_to(truth_of(train).mean(0) > .5, truth_of(val).shape)             # one mask for all
    score, floor = (dice_score(masks, truth_of(val)).mean() for masks in (predict_masks(net, val), place))
    assert score > .75 and score > floor + .1, f"Dice {score:.3f}, one mask for all {floor:.3f}"
