"Pathology factorization: the notebook's checks, the losses, one pass for each input, runs between paired and unpaired."
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from medgan.core.checks import ParameterError
from medgan.core.statistics import mean_interval
from medgan.data.images import ImageData, load_data
from medgan.data.registry import DataError
from medgan.models.cyclegan import CycleGANConfig, TwoDomains, train_conditional_gan, train_cyclegan
from medgan.networks.losses import least_squares_discriminator_loss
from medgan.pathology_factorization import (
    WEIGHTS,
    FactorizationConfig,
    FactorizationStudy,
    PathologyData,
    both_cycles,
    build_factorization,
    check_brain_set,
    crossed_mean,
    cycle_consistency,
    domains,
    factorization_step,
    image_discriminator_loss,
    image_generator_loss,
    lesion_back,
    load_factorization,
    others_masks,
    parsed_shares,
    segmentation_loss,
    train_factorization,
)
from medgan.training.checkpoints import CheckpointError

NOTEBOOK = Path(__file__).parent.parent/"nbs"/"04_pathology_factorization.ipynb"
CONFIG = FactorizationConfig(width=4, n_blocks=1, n_down=2, d_width=2, s_width=4, lr=1e-3, epochs=2, warmup=.5, pool=3)

def slices(n, lesion, seed=0, subjects=4):
    "Grey noise with or without a bright spot."
    rng = np.random.default_rng(seed)
    images, masks = rng.integers(40, 120, (n, 52, 40, 1), np.uint8), np.zeros((n, 52, 40), bool)
    if lesion:
        masks[:, 20:30, 12:22] = True
        images[masks] = 240
    about = dict(dx="pathological" if lesion else "healthy", source="test", label=int(lesion))
    table = pd.DataFrame([dict(id=f"{seed}{lesion}{i}", group=f"s{i % subjects}", **about) for i in range(n)])
    return ImageData("test", images, masks, table, ("healthy", "pathological"), f"{n} {seed}")

# ---- the notebook's own checks

def test_good_set_up(run_notebook):
    "Catches a setup cell that refuses its own defaults, and one that checks its parameters and goes on with the unchecked ones."
    p = run_notebook(NOTEBOOK, "epochs = 5\npaired_shares = .1\nn_seeds = 3.", "p = check(")["p"]
    assert (p.epochs, parsed_shares(p.paired_shares), p.n_seeds, type(p.n_seeds)) == (5, (.1,), 3, int)

BAD = [("data = 'tumour'", "data='tumour': no such data set; known are"), ("other_data = 'soap'", "other_data='soap': no such data set"),
       ("data = ''", "data=''"), ("size = 64", "size=64: must be one of 52, 104, 208"), ("epochs = 0", "epochs=0"), ("lr = -1", "lr=-1"),
       ("paired_shares = '2'", "paired_shares='2'"), ("paired_shares = 'all'", "paired_shares='all'"), ("middle = 0", "middle=0"),
       ("n_blocks = 0", "n_blocks=0"), ("epochs = 3", "warmup=4: must be less than epochs=3"), ("pre_width = 0", "pre_width=0"),
       ("n_down = 3", "n_down=3"), ("precision = 'half'", "precision='half'"), ("epoch = 3", "epoch: no such parameter; do you mean"),
       ("beta1 = 1", "beta1=1"), ("resume = True", "out_dir is empty"), ("n_transplants = 1", "n_transplants=1"), ("pool = -1", "pool=-1"),
       ("frame = 10", "frame=10"), ("middle = 2.5", "middle=2.5"),
       ("other_frame = 2000", "other_frame=2000"), ("n_seeds = 0", "n_seeds=0"), ("warmup = -1", "warmup=-1"),
       ("s_width = 0", "s_width=0"), ("d_width = 0", "d_width=0"), ("width = 0", "width=0"), ("n_slices = 61", "n_slices=61"),
       ("pre_epochs = 0", "pre_epochs=0"), ("probe_epochs = 0", "probe_epochs=0"), ("n_subjects = 0", "n_subjects=0"),
       ("results = '../x'", "results='../x'"), ("batch_size = 1", "batch_size=1"), ("seed = -1", "seed=-1")]

@pytest.mark.parametrize("injected, message", BAD, ids=[b[0] for b in BAD])
def test_bad_set_up(injected, message, run_notebook, tmp_path, monkeypatch):
    "Catches a parameter that the setup cell does not check."
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError) as caught: run_notebook(NOTEBOOK, injected, "p = check(")
    assert message in str(caught.value) and not list(tmp_path.iterdir())

def test_all_bad_ones_at_once():
    "Catches a check that stops at the first error: a set that is unknown hides a share that is none."
    with pytest.raises(ParameterError) as caught: FactorizationStudy(other_data="soap", paired_shares="half", size=64, epocs=1)
    for message in ("other_data='soap'", "paired_shares='half'", "size=64", "epocs: no such parameter"): assert message in str(caught.value)

def test_skin_is_refused():
    "Catches colour photographs, which would fail in the first network."
    import medgan.data.skin  # noqa: F401 (its sets are known from then on)
    with pytest.raises(ParameterError, match="data='ham10000': must be a set of brain slices"): check_brain_set("ham10000")
    assert FactorizationStudy(other_data="").other_data == ""

# ---- data

def test_few_subjects(run_notebook):
    "Catches a test part of one subject, on which no interval and no test can be had, found only after training."
    until = "parts = by_subject(whole)"
    with pytest.raises(DataError, match="test part has 1 subject"): run_notebook(NOTEBOOK, "n_subjects = 6\nseed = 6", until)
    assert run_notebook(NOTEBOOK, "n_subjects = 6", until)["parts"]["test"].table.group.nunique() == 2

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

def test_others_masks_at_the_limit():
    "Catches a move that is too short by one, where one subject has just half of the slices."
    groups = np.array(list("abbbcb"))                                                # b has four of six: refused
    with pytest.raises(DataError, match="b has 4 of 6"): others_masks(groups)
    groups = np.array(list("abbccb"))
    assert (groups[others_masks(groups)] != groups).all()

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
        changed = c._replace(**{name: torch.full_like(x_p, value)})
        assert cycle_consistency(changed, x_p, x_h).item() == pytest.approx(cost, abs=1e-6)

def test_segmentation_between():
    "Catches shares of paired and unpaired slices that do not add up to the two pure settings."
    logits, mask = torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8) > .7
    paired = torch.tensor([True, False, False, False])
    scores = torch.rand(3, 1, 2, 2)
    mixed = segmentation_loss(logits, mask, paired, scores)
    with_mask = segmentation_loss(logits[:1], mask[:1], paired[:1], None)
    without = segmentation_loss(logits[1:], mask[1:], paired[1:], scores)
    assert mixed.item() == pytest.approx((with_mask/4 + 3*without/4).item(), rel=1e-5)

# ---- configuration

def test_sides_that_cannot_be_halved():
    "Catches a size that the generator refuses in the first step only."
    with pytest.raises(ParameterError, match="height=50: must be divisible by 4"): CONFIG.changed(height=50)
    with pytest.raises(ParameterError, match="width_px=41: must be divisible by 4"): CONFIG.changed(width_px=41)
    assert CONFIG.changed(height=50, n_down=1).height == 50

def test_data_say_what_is_paired():
    "Catches a configuration that says another share, size or colour than the data have: it would be stored with the weights."
    data = PathologyData(slices(8, True), slices(8, False), .5)
    with pytest.raises(ParameterError, match="paired: the configuration has 1.0, the data 0.5"): train_factorization(data, paired=1.)
    with pytest.raises(ParameterError, match="height: the configuration has 104, the data 52"): train_factorization(data, height=104)
    run = train_factorization(data, CONFIG.changed(paired=.5), epochs=.6, progress="")
    assert run.step == 1

def test_the_same_budget_for_all():
    "Catches a baseline that is trained with other networks, rates or epochs than the method."
    study = FactorizationStudy(size=104, epochs=9, width=8, lr=1e-4, n_down=2)
    ours, theirs = study.training(), study.part(CycleGANConfig, sigmoid=True)
    assert (ours.height, ours.width_px, theirs.cycle, theirs.identity) == (104, 80, 10, 0)
    shared = CycleGANConfig.model_fields.keys() & FactorizationConfig.model_fields.keys()
    assert len(shared) > 12 and {n: getattr(ours, n) for n in shared} == {n: getattr(theirs, n) for n in shared}

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
    def of(is_D): return [p for name, net in nets.items() if name.startswith("D") == is_D for p in net.parameters()]
    optimizers = {k: torch.optim.Adam(of(k == "D"), 1e-3) for k in "GD"}
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
    assert {name: per_step[name] for name in ("G", "R", "S")} == dict(G=24, R=24, S=24) # two images a slice of each, 12 slices
    assert per_step["D_x"] == 12 + 2*12 + 2*12                                          # real once, two fakes before and after D's step
    assert (per_step["D_m"] > 0) == (paired < 1)

@pytest.mark.parametrize("paired", [0., .5, 1.])
def test_killed_run_goes_on(paired, goes_on):
    "Catches anything that training depends on and that the checkpoint lacks: both buffers of fakes, the falling learning rate."
    data, config = PathologyData(slices(16, True), slices(12, False), paired), CONFIG.changed(paired=paired)
    goes_on(lambda folder, **options: train_factorization(data, config, folder, progress="", checkpoint_every=3, **options))

def test_loaded_networks_are_the_trained_ones(tmp_path):
    "Catches a loader that hands back networks of another run, or untrained, and one that opens another model's run."
    sick, sound = slices(8, True), slices(8, False)
    run = train_factorization(PathologyData(sick, sound), CONFIG, str(tmp_path/"run"), progress="")
    nets, config = load_factorization(str(tmp_path/"run"))
    assert config == CONFIG and not any(net.training for net in nets.values()) and nets.keys() == {"G", "R", "S", "D_x", "D_m"}
    for name, net in nets.items(): assert all(map(torch.equal, net.parameters(), run.modules[name].parameters()))
    for name, train in dict(cyclegan=train_cyclegan, conditional=train_conditional_gan).items():
        train(TwoDomains(sick, sound), width=4, n_blocks=1, epochs=1, out_dir=str(tmp_path/name), progress="")
        with pytest.raises(CheckpointError, match="pathology factorization"): load_factorization(str(tmp_path/name))

def test_unpaired_never_reads_its_masks():
    "Catches masks that leak into the unpaired setting: with all of them changed, another subject's kept, the networks end the same."
    sick, config = slices(16, True), CONFIG.changed(paired=0.)
    honest = train_factorization(PathologyData(sick, slices(12, False), 0.), config, progress="")
    class Spoilt(PathologyData):
        def read(self, rows, device="cpu"):
            batch = super().read(rows, device)
            return batch | dict(mask=~batch["mask"])
    spoilt = train_factorization(Spoilt(sick, slices(12, False), 0.), config, progress="")
    assert all(torch.equal(a, b) for a, b in zip(honest.modules["S"].parameters(), spoilt.modules["S"].parameters()))

def test_copy_only_copies():
    "Catches a run as long as its warm-up whose last step is no longer one of the warm-up: the yardstick would have met a discriminator."
    data = TwoDomains(slices(18, True), slices(13, False))
    for warmup in (.4, 1., 1.5):
        run = train_conditional_gan(data, width=4, n_blocks=1, warmup=warmup, epochs=np.nextafter(warmup, 9.), progress="", log_every=1)
        assert run.step == max(1, round(warmup*4)) and "gan" not in run.history

# ---- measures

def test_lesion_back_by_hand():
    "Catches a share that is measured outside the lesion."
    x, mask = torch.full((1, 1, 4, 4), .9), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2, :2] = True
    healthy = torch.where(mask, .5, .9)
    back = torch.where(mask, .8, .1)
    assert lesion_back(back, healthy, x, mask) == pytest.approx([.75])

def test_crossed_mean_by_hand():
    "Catches a mean square with the wrong factor or degrees of freedom: rows and columns that add up without a rest."
    x = np.add.outer([0., 3.], [0., 1., 5.])                              # M_a = 13.5, M_b = 14, M_e = 0
    got = crossed_mean(x)
    se, ν = np.sqrt(27.5/6), 27.5**2/(14**2/2 + 13.5**2/1)
    half = stats.t.ppf(.975, ν)*se
    assert [got["mean"], got["low"], got["high"]] == pytest.approx([3.5, 3.5 - half, 3.5 + half])
    assert got["p"] == pytest.approx(2*stats.t.sf(3.5/se, ν))

def test_crossed_mean_is_never_narrower():
    "Catches trainings that agree by chance and make an interval narrower than that over subjects alone."
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = rng.normal(size=(3, 8)) + 2*rng.normal(size=(1, 8))
        alone, both = mean_interval(x.mean(0)), crossed_mean(x)
        assert both["mean"] == pytest.approx(alone[0])
        if both["high"] - both["low"] < alone[2] - alone[1]: assert both["high"] - both["low"] > .9*(alone[2] - alone[1])

def test_crossed_mean_refuses_and_gives_up():
    "Catches an interval of no width where nothing varies, and one subject."
    assert np.isnan([crossed_mean(np.ones((3, 4)))[k] for k in ("low", "high", "p")]).all()
    for bad in (np.ones(4), np.ones((3, 1))):
        with pytest.raises(ValueError, match="must be .trainings, subjects."): crossed_mean(bad)

def test_default_run():
    "Catches defaults that do not train: a few drawn subjects, a few steps, and everything moves."
    few = domains(load_data("tumour_phantom", size=52, n_subjects=4, n_slices=4))
    data = PathologyData(*few.values())
    run = train_factorization(data, progress="", epochs=2., warmup=0.)
    fresh = build_factorization(FactorizationConfig())
    assert run.step > 1 and run.history.cc.notna().all()
    assert all(net.state_dict().keys() == fresh[name].state_dict().keys() for name, net in run.modules.items())
