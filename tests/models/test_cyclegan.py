"Image translation without pairs: the two domains, the history of fakes, runs that are killed."
import numpy as np
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.data.registry import DataError
from medgan.models.cyclegan import (
    CycleGANConfig,
    ImagePool,
    TranslationConfig,
    TwoDomains,
    both_scores,
    cyclegan_terms,
    train_conditional_gan,
    train_cyclegan,
)
from medgan.networks.patch import PatchDiscriminator
from medgan.training.checkpoints import CheckpointError

CONFIG = dict(width=4, n_blocks=1, d_width=2, epochs=2, warmup=.5, pool=6)
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
    assert whole["optimizers"]["G"]["param_groups"][0]["lr"] < .3*TranslationConfig().lr

def test_another_run_is_refused(data, tmp_path):
    "Catches a checkpoint taken up with other images, weights or another end, on which the learning rate depends."
    train_cyclegan(data, CONFIG, str(tmp_path), progress="")
    again = lambda data, **changes: train_cyclegan(data, CONFIG | changes, str(tmp_path), progress="", resume=True)
    with pytest.raises(CheckpointError, match="cycle was 10.0, is 5.0"): again(data, cycle=5)
    with pytest.raises(CheckpointError, match="epochs was 2.0, is 4.0"): again(data, epochs=4)
    with pytest.raises(CheckpointError, match="fingerprint was"): again(TwoDomains(noise(24, 3), noise(16, 1)))

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

def test_discriminator_sees_its_domain(monkeypatch):
    "Catches D_a that is trained on B, which the losses alone would not tell."
    seen, score = [], PatchDiscriminator.forward
    monkeypatch.setattr(PatchDiscriminator, "forward", lambda self, x: (seen.append(x.detach()), score(self, x))[1])
    dark, bright = (as_image_data(np.full((8, 32, 32), v, np.uint8)) for v in (20, 220))
    train_cyclegan(TwoDomains(dark, bright), CONFIG | dict(batch_size=8, epochs=1), progress="")
    (D_a_of_a, _), (D_b_of_b, _) = (both.chunk(2) for both in seen[:2])       # D_a of a and F(b), D_b of b and G(a)
    assert torch.allclose(D_a_of_a, torch.tensor(20/255)) and torch.allclose(D_b_of_b, torch.tensor(220/255))

def test_both_at_once():
    "Catches scores that are dealt to the wrong side where the two are not equally many, or that depend on what else is judged."
    torch.manual_seed(0)
    D = PatchDiscriminator(1, 2).double()
    real, fake = torch.rand(3, 1, 32, 32, dtype=torch.double), torch.rand(2, 1, 32, 32, dtype=torch.double)
    for ours, alone in zip(both_scores(D, real, fake), (D(real), D(fake)), strict=True): assert torch.allclose(ours, alone)

def test_pool_is_not_touched_from_outside():
    "Catches a pool that hands out views of what it keeps."
    pool = ImagePool(2)
    given = torch.rand(2, 1, 2, 2)
    pool.exchange(given).zero_()
    assert torch.equal(torch.stack(pool.images), given)

@pytest.mark.parametrize("wrong, message", [
    (dict(warmup=2), "warmup=2: must be less than epochs=2"), (dict(channels=3), "channels: the configuration has 3, the data 1"),
    (dict(width=256, n_down=5), "width=256: with n_down=5 the deepest level has 8192 channels; must be at most 1024"),
    (dict(cycle=-1), "cycle=-1: must be a number from 0"), (dict(pool=-1), "pool=-1: must be a whole number from 0")])
def test_bad_settings(wrong, message, data):
    "Catches a run that never leaves its warm-up, networks for other images, and widths that multiply to what no machine bears."
    with pytest.raises(ParameterError) as caught: train_cyclegan(data, CONFIG | wrong, progress="")
    assert message in str(caught.value)

def test_cyclegan_is_a_translation():
    "Catches a parameter of the one that the other has with another meaning or default: they are compared under the same settings."
    shared = TranslationConfig.model_fields
    assert {n: f.default for n, f in CycleGANConfig.model_fields.items() if n in shared} == {n: f.default for n, f in shared.items()}
    assert CycleGANConfig.model_fields.keys() - shared.keys() == {"cycle", "identity"} and TranslationConfig.ends and CycleGANConfig.ends
