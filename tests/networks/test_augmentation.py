"Conventional augmentation of a classifier's images."
import torch

from medgan.networks.augmentation import ConventionalAugmentation

def test_conventional_augmentation():
    "Catches an augmentation that is on when the net is tested, leaves [-1,1], or treats all images of a batch alike."
    augment, x = ConventionalAugmentation(), torch.rand(64, 3, 16, 16)*2 - 1
    assert torch.equal(augment.eval()(x), x)
    y = augment.train()(x[:1].expand(64, -1, -1, -1))
    assert y.abs().max() <= 1 and len(torch.unique(y.mean((1, 2, 3)))) > 32
