"Image translation without pairs: the two domains, the networks, the history of fakes, runs that are killed."
import numpy as np
import pytest
import torch

from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.training.checkpoints import CheckpointError
from medgan.models.cyclegan import ImagePool, TwoDomains, cyclegan_terms, train_conditional_gan, train_cyclegan
from medgan.networks.patch import PatchDiscriminator
from medgan.networks.resnet import ResNetGenerator

CONFIG = dict(channels=1, width=4, n_blocks=1, n_down=2, d_width=2, sigmoid=False, lr=1e-3, beta1=.5, batch_size=4, epochs=2, precision="no", seed=0, warmup=.5, pool=6, cycle=10, identity=0)
TRAIN = {"conditional GAN": train_conditional_gan, "CycleGAN": train_cyclegan}

def noise(n, seed, size=32): return as_image_data(np.random.default_rng(seed).integers(0, 256, (n, size, size), np.uint8))

@pytest.fixture(scope="module")
def data(): return TwoDomains(noise(24, 0), noise(16, 1))

def test_domains(data):
    "Catches a domain of which an epoch leaves images out, the order of the set kept, and the smaller one shown unevenly."
    assert len(data) == 24 and sorted(data.rows_a) == list(range(24)) and list(data.rows_a) != list(range(24))
    assert sorted(np.bincount(data.rows_b)) == [1]*8 + [2]*8
    with pytest.raises(DataError, match="both need at least one"): TwoDomains(noise(2, 0), noise(2, 1).subset(np.zeros(2, bool)))

@pytest.mark.parametrize("name", TRAIN)
def test_killed_run_goes_on(name, data, goes_on):
    "Catches a buffer of fakes, an optimiser or a learning rate that the checkpoint lacks."
    whole = goes_on(lambda folder, **options: TRAIN[name](data, CONFIG, folder, progress="", checkpoint_every=3, **options))
    assert whole["optimizers"]["G"]["param_groups"][0]["lr"] < .3*CONFIG["lr"]

def test_another_run_is_refused(data, tmp_path):
    "Catches a checkpoint taken up with other images or weights."
    train_cyclegan(data, CONFIG, str(tmp_path), progress="")
    with pytest.raises(CheckpointError, match="cycle was 10, is 5"): train_cyclegan(data, CONFIG | dict(cycle=5), str(tmp_path), progress="", resume=True)
    with pytest.raises(CheckpointError, match="fingerprint was"): train_cyclegan(TwoDomains(noise(24, 3), noise(16, 1)), CONFIG, str(tmp_path), progress="", resume=True)

def test_sample_grid(data, tmp_path):
    "Catches a run that keeps no pictures of what it makes of the same images."
    show = data.a.read(np.arange(4))["image"]
    train_conditional_gan(data, CONFIG, str(tmp_path), progress="", show=show)
    assert len(list((tmp_path/"samples").glob("*.jpg"))) == 2

def test_cycle_is_not_its_own_identity():
    "Catches a cycle that is closed with the wrong generator, or an identity term that is there without being asked for."
    G, F = (lambda x: x/2), (lambda x: 2*x)
    a, b = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    terms, *_ = cyclegan_terms(G, F, a, b)
    assert terms.keys() == {"cycle"} and terms["cycle"] < 1e-6
    assert cyclegan_terms(G, G, a, b)[0]["cycle"] > .3

def test_discriminator_sees_its_domain(data, monkeypatch):
    "Catches D_a that is trained on B, which the losses alone would not tell."
    import medgan.models.cyclegan as cyclegan
    seen, score = [], PatchDiscriminator.forward
    monkeypatch.setattr(PatchDiscriminator, "forward", lambda self, x: (seen.append(x.detach()), score(self, x))[1])
    dark, bright = (as_image_data(np.full((8, 32, 32), v, np.uint8)) for v in (20, 220))
    cyclegan.train_cyclegan(TwoDomains(dark, bright), CONFIG | dict(batch_size=8, epochs=1), progress="")
    assert torch.allclose(seen[0], torch.tensor(20/255)) and torch.allclose(seen[2], torch.tensor(220/255))       # D_a(a), D_a(F(b)), D_b(b), D_b(G(a))

def test_pool_is_not_touched_from_outside():
    "Catches a pool that hands out views of what it keeps."
    pool = ImagePool(2)
    given = torch.rand(2, 1, 2, 2)
    pool.exchange(given).zero_()
    assert torch.equal(torch.stack(pool.images), given)

@pytest.mark.parametrize("wrong", [dict(width=0), dict(n_blocks=1.5), dict(n_down=0), dict(channels=0)])
def test_networks_refuse(wrong):
    "Catches sizes of networks that make no sense."
    with pytest.raises(ValueError, match=next(iter(wrong))): ResNetGenerator(**wrong)
