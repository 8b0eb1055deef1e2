"The generator of residual blocks refuses sizes that make no sense."
import pytest

from medgan.networks.resnet import ResNetGenerator

@pytest.mark.parametrize("wrong", [dict(width=0), dict(n_blocks=1.5), dict(n_down=0), dict(channels=0)])
def test_networks_refuse(wrong):
    "Catches sizes of networks that make no sense."
    with pytest.raises(ValueError, match=next(iter(wrong))): ResNetGenerator(**wrong)
