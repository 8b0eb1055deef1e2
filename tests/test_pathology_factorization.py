"Pathology factorization: the notebook's checks, the losses, one pass for each input, runs between paired and unpaired."
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medgan.data.images import ImageData
from medgan.data.registry import DataError
from medgan.networks.losses import least_squares_discriminator_loss
from medgan.core.checks import ParameterError
from medgan.training.checkpoints import CheckpointError
from medgan.models.cyclegan import TwoDomains, train_cyclegan
from medgan.pathology_factorization import (WEIGHTS, PathologyData, both_cycles, build_factorization,
                                            cycle_consistency, domains, factorization_step, image_discriminator_loss,
                                            image_generator_loss, lesion_back, load_factorization, segmentation_loss,
                                            train_factorization)

NOTEBOOK = Path(__file__).parent.parent/"nbs"/"04_pathology_factorization.ipynb"
CONFIG = dict(channels=1, height=52, width_px=40, width=4, n_blocks=1, n_down=2, d_width=2, s_width=4, sigmoid=True, lr=1e-3, beta1=.5, batch_size=4, epochs=2, precision="no",
              seed=0, warmup=.5, pool=3, cycle=10., identity=0.)

def slices(n, lesion, seed=0, subjects=4):
    "Grey noise with or without a bright spot."
    rng = np.random.default_rng(seed)
    images, masks = rng.integers(40, 120, (n, 52, 40, 1), np.uint8), np.zeros((n, 52, 40), bool)
    if lesion:
        masks[:, 20:30, 12:22] = True
        images[masks] = 240
    table = pd.DataFrame(dict(id=[f"{seed}{lesion}{i}" for i in range(n)], dx="pathological" if lesion else "healthy", group=[f"s{i % subjects}" for i in range(n)], source="test",
                              label=int(lesion)))
    return ImageData("test", images, masks, table, ("healthy", "pathological"), f"{n} {seed}")

# ---- the notebook's own checks

def test_good_set_up(run_notebook):
    "Catches a setup cell that refuses its own defaults."
    assert run_notebook(NOTEBOOK, "epochs = 5")["epochs"] == 5

BAD = [("data = 'tumor'", DataError, "data='tumor': no such data set"), ("other_data = 'soap'", DataError, "data='soap': no such data set"), ("size = 64", ParameterError, "size=64: must be one of 52, 104, 208"),
       ("epochs = 0", ParameterError, "epochs=0"), ("lr = -1", ParameterError, "lr=-1"), ("paired_shares = '2'", ParameterError, "paired_shares=2"), ("middle = 0", ParameterError, "middle=0"),
       ("paired_shares = 'all'", ParameterError, "paired_shares='all'"), ("n_blocks = 0", ParameterError, "n_blocks=0"), ("epochs = 3", ParameterError, "warmup=4: must be less than epochs=3"), ("pre_width = 0", ParameterError, "pre_width=0"), ("n_down = 3", ParameterError, "n_down=3"), ("epoch = 3", ParameterError, "no such parameter: epoch"),
       ("precision = 'half'", ParameterError, "precision='half'"), ("beta1 = 1", ParameterError, "beta1=1"), ("resume = True", ParameterError, "out_dir is empty"),
       ("n_transplants = 1", ParameterError, "n_transplants=1"), ("pool = -1", ParameterError, "pool=-1"), ("frame = 10", ParameterError, "frame=10")]

@pytest.mark.parametrize("injected, error, message", BAD, ids=[b[0] for b in BAD])
def test_bad_set_up(injected, error, message, refuses):
    "Catches a parameter that the setup cell does not check."
    refuses(NOTEBOOK, injected, error, message)

# ---- data

def test_few_subjects(run_notebook):
    "Catches a test part of one subject, on which no interval and no test can be had, found only after training."
    with pytest.raises(DataError, match="test part has 1 subject"): run_notebook(NOTEBOOK, "n_subjects = 4", "def by_subject")
    assert run_notebook(NOTEBOOK, "n_subjects = 6", "def by_subject")["parts"]["test"].table.group.nunique() == 2

def test_one_domain_only():
    "Catches a set without healthy slices, which would end in a training on nothing."
    with pytest.raises(DataError, match="none of them healthy"): domains(slices(6, True))
    with pytest.raises(DataError, match="none of them pathological"): domains(slices(6, False))

def test_other_masks_are_of_others():
    "Catches D_m shown a subject's own mask, which would make unpaired data paired."
    sick = slices(23, True, subjects=5)
    sick.masks[np.arange(23), 0, np.arange(23) % 5] = True                          # the subject's number in the first row
    batch = PathologyData(sick, slices(8, False)).read(np.arange(23))
    assert not (batch["mask"][:, 0, 0] & batch["other_mask"][:, 0, 0]).any() and batch["other_mask"][:, 0, 0].any(1).all()

def test_paired_subjects_are_nested_and_whole():
    "Catches a subject of whom some slices are paired and others not, and shares that are not nested."
    sick = slices(40, True, subjects=10)
    flags = {s: PathologyData(sick, slices(8, False), s).is_paired for s in (0, .2, .5, 1)}
    assert [int(f.sum()) for f in flags.values()] == [0, 8, 20, 40]
    assert (flags[.2] <= flags[.5]).all() and pd.Series(flags[.5].numpy()).groupby(sick.table.group).nunique().max() == 1

def test_data_refuses():
    "Catches one subject who has more than half of the masks, so that his own would be shown, and sets without masks."
    with pytest.raises(DataError, match="s0 has 6 of 6 pathological slices"): PathologyData(slices(6, True, subjects=1), slices(4, False))
    bare = slices(6, True)
    bare.masks = None
    with pytest.raises(DataError, match="has no masks"): PathologyData(bare, slices(4, False))

# ---- losses

def test_wrong_labels_cost():
    "Catches labels of the least-squares loss that were exchanged, in one of the two or in both."
    real, fake = torch.full((2, 1, 3, 3), .9), torch.full((2, 1, 3, 3), .1)
    assert image_discriminator_loss(real, fake, fake) < .03 < image_discriminator_loss(fake, real, real)
    assert image_generator_loss(real, real) < image_generator_loss(fake, fake)
    assert image_discriminator_loss(real, fake, fake) == pytest.approx(2*least_squares_discriminator_loss(real, fake).item())

def test_healthy_passes_through():
    "Catches a cycle H-H that starts with another map than an empty one."
    seen = []
    def R(x):
        seen.append(x[:, 1:])
        return x[:, :1]
    x_p, x_h = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    c = both_cycles(lambda x: x, R, lambda x: torch.full_like(x, -200.), x_p, x_h)
    assert torch.equal(c.fake, x_h) and torch.equal(c.again, x_h) and (seen[0] == 0).all() and cycle_consistency(c, x_p, x_h) < 1e-6

def test_each_term_alone():
    "Catches a term that is missing, doubled or has another one's target."
    x_p, x_h = torch.full((1, 1, 4, 4), .6), torch.full((1, 1, 4, 4), .3)
    c = both_cycles(lambda x: x, lambda x: x[:, :1], lambda x: torch.full_like(x, -200.), x_p, x_h)
    for name, value, cost in (("back", .5, .1), ("again", .5, .2), ("map_again", .25, .25)):
        assert cycle_consistency(c._replace(**{name: torch.full_like(x_p, value)}), x_p, x_h).item() == pytest.approx(cost, abs=1e-6)

def test_segmentation_between():
    "Catches shares of paired and unpaired slices that do not add up to the two pure settings."
    logits, mask = torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8) > .7
    paired = torch.tensor([True, False, False, False])
    scores = torch.rand(3, 1, 2, 2)
    mixed = segmentation_loss(logits, mask, paired, scores)
    assert mixed.item() == pytest.approx((segmentation_loss(logits[:1], mask[:1], paired[:1], None)/4 + 3*segmentation_loss(logits[1:], mask[1:], paired[1:], scores)/4).item(), rel=1e-5)

# ---- training

def counted(paired):
    "How often each network saw each image with the same weights, in three steps."
    torch.manual_seed(0)
    nets, seen = build_factorization(CONFIG), Counter()
    def watch(name, net):
        def hook(module, args):
            version = tuple(p._version for p in module.parameters())
            for image in args[0].detach(): seen[name, version, image.numpy().tobytes()] += 1
        net.register_forward_pre_hook(hook)
    for name, net in nets.items(): watch(name, net)
    optimizers = {k: torch.optim.Adam([p for name, net in nets.items() if name.startswith("D") == (k == "D") for p in net.parameters()], 1e-3) for k in "GD"}
    def update(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    step = factorization_step(WEIGHTS[paired == 1])(nets, optimizers, update, {"D_x": lambda x: x, "D_m": lambda x: x})
    sick = slices(12, True)
    sick.masks[np.arange(12), 45, np.arange(12)] = True                   # no two masks alike
    data = PathologyData(sick, slices(12, False), paired)
    for rows in np.split(np.arange(12), 3): step(data.read(rows))
    return seen

@pytest.mark.parametrize("paired", [0, .5, 1])
def test_no_pass_twice(paired):
    "Catches a step that runs a network again on what it has seen with the same weights: S once for the map and once for its loss, say."
    seen = counted(paired)
    assert set(seen.values()) == {1}
    per_step = Counter(name for name, *_ in seen.elements())
    assert {name: per_step[name] for name in ("G", "R", "S")} == dict(G=24, R=24, S=24)      # two images a slice of each, 12 slices
    assert per_step["D_x"] == 12 + 2*12 + 2*12                                                # real once, two fakes before and after D's step
    assert (per_step["D_m"] > 0) == (paired < 1)

@pytest.mark.parametrize("paired", [0., .5, 1.])
def test_killed_run_goes_on(paired, goes_on):
    "Catches anything that training depends on and that the checkpoint lacks: the buffers of fakes of both discriminators, the falling learning rate."
    data = PathologyData(slices(16, True), slices(12, False), paired)
    goes_on(lambda folder, **options: train_factorization(data, CONFIG, folder, progress="", checkpoint_every=3, **options))

def test_loaded_networks_are_the_trained_ones(tmp_path):
    "Catches a loader that hands back networks of another run, or untrained, and one that opens another model's run."
    run = train_factorization(PathologyData(slices(8, True), slices(8, False)), CONFIG, str(tmp_path/"run"), progress="")
    nets, config = load_factorization(str(tmp_path/"run"))
    assert config["height"] == 52 and not any(net.training for net in nets.values())
    assert all(torch.equal(a, b) for name in ("G", "R", "S", "D_x", "D_m") for a, b in zip(nets[name].parameters(), run.modules[name].parameters()))
    train_cyclegan(TwoDomains(slices(8, True), slices(8, False)), CONFIG, str(tmp_path/"cyclegan"), progress="")
    with pytest.raises(CheckpointError, match="pathology factorization"): load_factorization(str(tmp_path/"cyclegan"))

def test_unpaired_never_reads_its_masks():
    "Catches masks that leak into the unpaired setting: with all of them changed, another subject's kept, the networks end the same."
    sick = slices(16, True)
    data = PathologyData(sick, slices(12, False), 0.)
    honest = train_factorization(data, CONFIG, progress="")
    class Spoilt(PathologyData):
        def read(self, rows, device="cpu"):
            batch = super().read(rows, device)
            return batch | dict(mask=~batch["mask"])
    spoilt = train_factorization(Spoilt(sick, slices(12, False), 0.), CONFIG, progress="")
    assert all(torch.equal(a, b) for a, b in zip(honest.modules["S"].parameters(), spoilt.modules["S"].parameters()))

def test_lesion_back_by_hand():
    "Catches a share that is measured outside the lesion."
    x, mask = torch.full((1, 1, 4, 4), .9), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2, :2] = True
    healthy = torch.where(mask, .5, .9)
    back = torch.where(mask, .8, .1)
    assert lesion_back(back, healthy, x, mask) == pytest.approx([.75])
