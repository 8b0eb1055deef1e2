"StyleGAN2's networks refuse what they cannot be."
import pytest

from medgan.core.checks import ParameterError
from medgan.models.stylegan2 import Discriminator, Generator

WRONG = [(dict(size=24), "size=24: must be a power of two"), (dict(size=8), "size=8"), (dict(size=32, channels=5), "channels=5"),
         (dict(size=32, n_classes=-1), "n_classes=-1")]

@pytest.mark.parametrize("network", [Generator, Discriminator])
@pytest.mark.parametrize("wrong, message", WRONG)
def test_bad_networks(network, wrong, message):
    "Catches networks of a size that no chain of halvings reaches, with an error from deep inside torch or none at all."
    with pytest.raises(ParameterError, match=message): network(**wrong)
