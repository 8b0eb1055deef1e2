"Penalties reach the network that they are meant for, and no other."
import pytest
import torch

from medgan.networks.losses import gradient_penalty

def test_penalty_reaches_only_the_critic():
    "Catches a penalty that trains the generator, and one over the batch instead of over each image's pixels."
    fake = torch.randn(6, 3, 4, 4, requires_grad=True)
    w = torch.full((3, 4, 4), .5, requires_grad=True)
    penalty = gradient_penalty(lambda x: (w*x).sum(dim=(1, 2, 3)), torch.randn(6, 3, 4, 4), fake)
    assert penalty.item() == pytest.approx((w.norm().item() - 1)**2, rel=1e-4)
    assert torch.autograd.grad(penalty, fake, allow_unused=True)[0] is None
