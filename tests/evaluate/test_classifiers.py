"Classifiers are trained on balanced classes, judged in evaluation mode, and scored as by hand."
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medgan.core.checks import ParameterError
from medgan.data.images import ImageData, as_image_data
from medgan.data.registry import DataError
from medgan.evaluate.classifiers import (
    DetectionCNN,
    calibration_error,
    class_weights,
    classifier_scores,
    fit_classifier,
    image_batches,
    oversample,
    predict,
    recall_table,
)
from medgan.training.checkpoints import same_state
from medgan.training.loop import set_seed

def toy(counts, seed=0, size=16):
    "Noise whose brightness tells the class; the ids of two seeds differ."
    rng, n = np.random.default_rng(seed), sum(counts)
    labels = np.repeat(np.arange(len(counts)), counts)
    images = (rng.integers(0, 80, (n, size, size, 3)) + 80*labels[:, None, None, None]).astype(np.uint8)
    classes = [f"c{k}" for k in range(len(counts))]
    groups = [f"toy{seed}/{i}" for i in range(n)]
    table = pd.DataFrame(dict(id=[f"{seed}-{i}" for i in range(n)], dx=[classes[k] for k in labels], label=labels, group=groups))
    return ImageData("toy", images, None, table, classes, f"toy-{seed}")

def cnn(n_classes=2, seed=0):
    set_seed(seed)
    return DetectionCNN(16, n_classes, width=4, hidden=16)

class Mean(nn.Module):
    "Logits from the mean of an image: two classes, by brightness; counts the images that it is shown at a time."
    def __init__(self):
        super().__init__()
        self.slope, self.seen = nn.Parameter(torch.tensor(4.)), []
    def forward(self, x):
        self.seen.append(len(x))
        logit = self.slope*x.mean((1, 2, 3))
        return torch.stack([-logit, logit], 1)

@pytest.mark.parametrize("n, batch_size, sizes", [(7, 3, [3, 2, 2]), (6, 3, [3, 3]), (2, 5, [2]), (1, 1, [1])])
def test_batches(n, batch_size, sizes):
    "Catches a batch that is empty or too large, a last image that is lost, and another order."
    data = toy([n, 3]).subset(np.arange(n)[::-1])
    for source in (data, data.read(np.arange(n))["image"]):
        batches = list(image_batches(source, batch_size))
        assert [len(x) for x in batches] == sizes
        assert torch.equal(torch.cat(batches), data.read(np.arange(n))["image"])

def test_predict():
    "Catches logits in place of probabilities, rows mixed up between batches, and gradients that are kept."
    net, data = Mean().train(), toy([5, 6])
    p = predict(net, data, batch_size=4)
    assert net.seen == [4, 4, 3] and net.training and p.dtype == np.float64
    assert np.allclose(p.sum(1), 1) and (np.diff(p[:, 1]) > 0)[4] and (p.argmax(1) == data.labels.numpy()).mean() > .4
    assert np.allclose(p, predict(net, data.read(np.arange(11))["image"]))

def test_size_refused():
    "Catches a head whose number of inputs does not fit."
    with pytest.raises(ValueError, match="size=20: must be divisible by 8"): DetectionCNN(20, 2)

def test_missing_class():
    "Catches an infinite weight."
    data = toy([4, 4])
    with pytest.raises(ValueError, match="no training image of class c1"): class_weights(data.subset(np.arange(4)))

def test_oversample_repeats_evenly():
    "Catches drawing with replacement: of 3 images that are to be 10, each comes three or four times."
    times = oversample(toy([10, 3])).table.id.value_counts()
    assert sorted(times[10:].tolist() + times[:10].tolist()) == [1]*10 + [3, 3, 4]
    assert not oversample(toy([10, 3]), seed=1).table.equals(oversample(toy([10, 3]), seed=2).table)

def test_calibration_bins():
    "Catches a confidence of 1 that falls out of the last bin."
    assert calibration_error(np.array([[1., 0.]]*4), np.array([0, 0, 0, 1])) == pytest.approx(.25)

def test_classes_that_do_not_occur():
    "Catches a mean over classes without an image, and AUC of a single class."
    p = np.array([[.7, .2, .1], [.2, .7, .1], [.6, .3, .1]])
    scores = classifier_scores(p, np.array([0, 1, 1]))
    assert scores["balanced_accuracy"] == .75 and scores["accuracy"] == pytest.approx(2/3)
    assert np.isnan(classifier_scores(p[:1], np.array([0]))["auc"])
    table = recall_table(p, np.array([0, 1, 1]), ["a", "b", "c"])
    assert table.n.tolist() == [1, 2, 0] and table.loc["c", ["recall", "low", "confidence", "auc"]].isna().all()

def test_same_seed_same_weights():
    "Catches an order or a dropout that no seed determines, and a seed that changes nothing."
    def trained(seed):
        net = cnn()
        torch.rand(seed + 5)                                                     # somebody else's random numbers
        history = fit_classifier(net, toy([20, 6]), toy([6, 6], 1), epochs=2, batch_size=8, seed=seed, progress="")
        return net.state_dict(), history
    (a, first), (b, second), (other, _) = trained(0), trained(0), trained(1)
    assert same_state(a, b) and first.equals(second) and not same_state(a, other)

@pytest.mark.parametrize("balance", ["oversample", "weights", "none"])
def test_learns(balance):
    "Catches a way of balancing that trains on wrong labels, and a history without its columns."
    net = cnn()
    history = fit_classifier(net, toy([40, 10]), toy([8, 8], 1), epochs=6, lr=1e-2, batch_size=10, balance=balance, progress="")
    assert list(history) == ["epoch", "loss", "accuracy", "val_accuracy", "val_balanced_accuracy"]
    assert history.val_balanced_accuracy.max() == 1

def test_refused():
    "Catches a validation part that was trained on, unless that is wanted, and a balance that does not exist."
    data = toy([8, 8])
    with pytest.raises(ValueError, match=r"16 groups \(lesions, patients\) are in the training and in the validation part"):
        fit_classifier(cnn(), data, data, epochs=1, progress="")
    assert len(fit_classifier(cnn(), data, data, epochs=1, progress="", leak=True)) == 1
    with pytest.raises(ParameterError, match="balance='both': must be one of"):
        fit_classifier(cnn(), data, toy([4, 4], 1), balance="both")

def test_groups_are_remembered():
    "Catches a validation part with other images of training lesions, and a test on lesions that trained the net, without a word."
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    whole = as_image_data(images, labels=[0, 1]*20, groups=[f"set/{i//4}" for i in range(40)])
    train, val, test = (whole.subset(np.arange(a, b)) for a, b in ((0, 16), (16, 28), (28, 40)))
    with pytest.raises(DataError, match=r"1 groups .* such as set/3: split by group"):
        fit_classifier(cnn(), train, whole.subset(np.arange(14, 28)), epochs=1, progress="")
    net = cnn()
    fit_classifier(net, train, val, epochs=1, progress="")
    with pytest.warns(UserWarning, match="the groups of 25.0% of the images trained the net") as caught:
        predict(net, whole.subset(np.arange(12, 28)))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(net, test)
