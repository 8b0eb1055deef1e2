"The strength of the augmentation keeps its pace, whatever the batch and however often it is interrupted."
import pytest
import torch

from medgan.models.stylegan2_augment import AdaptiveP, Augment
from medgan.training.checkpoints import same_state

def test_p_keeps_its_pace():
    "Catches p that moves by steps and not by images: with another batch the run would be another."
    for batch in (2, 8):
        adapt = AdaptiveP(Augment("bg"), kimg=1.)
        for _ in range(96//batch): adapt(torch.ones(batch))
        assert adapt.augment.p.item() == pytest.approx(.096)

def test_p_goes_on():
    "Catches signs since the last change that are lost with the process."
    logits = torch.randn(10, 8, generator=torch.Generator().manual_seed(0)) + 1
    whole = AdaptiveP(Augment("bg"), kimg=.1)
    for batch in logits: whole(batch)
    first, second = (AdaptiveP(Augment("bg"), kimg=.1) for _ in range(2))
    for batch in logits[:6]: first(batch)
    second.load_state_dict(first.state_dict())
    second.augment.load_state_dict(first.augment.state_dict())
    for batch in logits[6:]: second(batch)
    assert same_state(second.state_dict(), whole.state_dict()) and second.augment.p == whole.augment.p > 0
