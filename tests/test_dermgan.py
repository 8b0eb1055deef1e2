"The DermGAN notebook refuses bad parameters; its maps, losses and runs keep what they promise."
import numpy as np
import pandas as pd
import pytest
import torch
from nbdev.config import get_config
from PIL import Image

from medgan.core.checks import ParameterError
from medgan.data.crops import roi_crops
from medgan.data.images import ImageData, load_data
from medgan.data.registry import DataError
from medgan.dermgan import (
    MAP_SIZES,
    TERMS,
    DermGANConfig,
    DermGANDiscriminator,
    DermGANGenerator,
    MapData,
    as_input,
    code_table,
    decode_map,
    draw,
    encode_map,
    encode_maps,
    fid_trials,
    generator_terms,
    grow_boxes,
    load_dermgan,
    roi_loss,
    roi_of,
    sample_maps,
    train_dermgan,
    vary_tone,
    weighted_sum,
)
from medgan.evaluate.obedience import checkerboard
from medgan.training.checkpoints import CheckpointError, save_checkpoint

NOTEBOOK = get_config().nbs_path/"02_dermgan.ipynb"
CONFIG = dict(width=4, batch_size=8, epochs=2)
CLASSES = ["a", "b", "c"]

# ---- the notebook's own checks

def test_good_set_up(run_notebook):
    "Catches a setup cell that refuses its own defaults, or does not use the value that was checked."
    p = run_notebook(NOTEBOOK, "epochs = 1; n_maps = 30.", until="p = check(")["p"]
    assert p.epochs == 1 and p.n_maps == 30 and type(p.n_maps) is int
    assert p.part(DermGANConfig, classes=("a", "b")).weights == dict(gan=1, rec=10, roi=10, fm=1)

BAD = [("data = 'ham1000'", "data='ham1000': no such data set"), ("size = 48", "size=48: must be one of 32, 64, 128, 256"),
       ("epochs = 0", "epochs=0"), ("batch_size = 1", "batch_size=1"), ("lr = 0", "lr=0"), ("seed = -1", "seed=-1"),
       ("epocs = 3", "epocs: no such parameter; do you mean epochs"), ("resume = True", "out_dir is empty"), ("w_roi = -1", "w_roi=-1"),
       ("w_gan = w_rec = w_roi = w_fm = 0", "at least one loss must count"),
       ("w_gan = w_rec = w_fm = 0", "w_roi=10, w_fm=0: must both be above 0"),
       ("dropout = 1", "dropout=1"), ("n_crops = 0", "n_crops=0"), ("n_maps = 2", "n_maps=2"), ("grid_epochs = -1", "grid_epochs=-1"),
       ("precision = 'fp8'", "precision='fp8'"), ("n_seeds = 1", "n_seeds=1"), ("classifier_epochs = 1.5", "classifier_epochs=1.5"),
       ("n_trial = 1", "n_trial=1"), ("width = 100_000", "width=100000"), ("upsampling = 'bilinear'", "upsampling='bilinear'"),
       ("classes = 'nv'", "one condition only"), ("boxes_csv = 'none.csv'", "boxes_csv='none.csv': must be a file"),
       ("results = 'phantom_64px'", "results='phantom_64px': dermgan has a run of that name")]

@pytest.mark.parametrize("injected, message", BAD, ids=[b[0][:24] for b in BAD])
def test_bad_set_up(injected, message, refuses):
    "Catches a parameter that the setup cell does not check."
    refuses(NOTEBOOK, injected, ParameterError, message)

def test_bad_data(run_notebook, tmp_path):
    "Catches an unknown condition, and boxes for a set that has masks of its own."
    boxes_csv = tmp_path/"boxes.csv"
    boxes_csv.write_text("id,x0,y0,x1,y1\n")
    for injected, message in (("classes = 'nv, wart'", "'wart' not in phantom"), (f"boxes_csv = {str(boxes_csv)!r}", "phantom: boxes=")):
        with pytest.raises(DataError, match=message): run_notebook(NOTEBOOK, f"{injected}; n_phantoms = 100", until="K < 2")

def clinical_set(folder):
    "A small Fitzpatrick17k of phantoms in its publisher's layout, with boxes (two in some images) in a CSV; gives the CSV."
    drawn = load_data("phantom", size=96, n=240, classes=["mel", "nv"])
    rows, marks = [], []
    (folder/"images").mkdir(parents=True)
    for i, mine in enumerate(drawn.roi_boxes()):
        name = f"{i:032x}"
        Image.fromarray(drawn.images[drawn.rows[i]]).save(folder/"images"/f"{name}.jpg", quality=90)
        scale = -1 if i % 7 == 0 else int(drawn.table.skin_type[i])
        rows.append(dict(md5hash=name, fitzpatrick_scale=scale, fitzpatrick_centaur=-1, label=drawn.table.dx[i],
                         nine_partition_label="x", three_partition_label="x", qc="", url="", url_alphanum=""))
        marks += [(name, *box) for box in mine] + ([(name, 0, 0, 9, 9)] if i % 5 == 0 else [])
    pd.DataFrame(rows).to_csv(folder/"fitzpatrick17k.csv", index=False)
    pd.DataFrame(marks, columns=["id", "x0", "y0", "x1", "y1"]).to_csv(folder/"boxes.csv", index=False)
    return folder/"boxes.csv"

@pytest.mark.filterwarnings("ignore")
def test_clinical_set_with_boxes(tmp_path, cache, run_notebook, capsys):
    "Catches a notebook that needs lesion masks, a skin type for every image, or one box an image: the public clinical sets have none."
    table = clinical_set(tmp_path/"fitzpatrick17k")
    small = "epochs = .3; width = 4; n_maps = 6; batch_size = 8; seed = 1"
    where = f"data = 'fitzpatrick17k'; data_dir = {str(tmp_path)!r}; boxes_csv = {str(table)!r}"
    scope = run_notebook(NOTEBOOK, f"{where}; {small}", until="place_tables, real_place = {}, {}")
    assert scope["crops"]["train"].masks is None and not scope["place_tables"]
    assert "size and place are shown below, and not measured" in capsys.readouterr().out
    assert {1, 2} <= set(scope["crops"]["train"].table.boxes.map(len))
    assert scope["crops"]["train"].table.skin_type.between(1, 6).all() and np.isfinite(scope["tones"]["all six types"].value).all()

# ---- semantic maps

@pytest.mark.parametrize("n_classes", [2, 7, 8, 15, 16, 26])
def test_codes_differ(n_classes):
    "Catches a grid too small for the classes, and a condition whose code is that of bare skin."
    codes = code_table([f"c{i}" for i in range(n_classes)])
    assert len(codes.drop_duplicates()) == n_classes and (codes.to_numpy() > 0).any(1).all()

@pytest.mark.parametrize("seed", range(20))
def test_map_there_and_back(seed):
    "Catches boxes cut at the border, codes that are mixed up, and boxes lost where they overlap."
    rng, size = np.random.default_rng(seed), 48
    low = rng.integers(0, size - 1, (rng.integers(1, 6), 2))
    given = np.concatenate([low, np.minimum(low + rng.integers(1, 25, low.shape), size)], 1)
    skin_type, condition = int(rng.integers(1, 7)), str(rng.choice(CLASSES))
    m = encode_map(skin_type, condition, given, size, CLASSES)
    inside = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in given: inside[y0:y1, x0:x1] = True
    assert np.array_equal(m[1:].any(0), inside)
    back = decode_map(m, CLASSES)
    assert back[:2] == (skin_type, condition)
    assert np.array_equal(encode_map(*back, size, CLASSES), m)
    holds = [any((b[:2] <= low).all() and (b[2:] >= high).all() for b in back[2]) for low, high in (np.split(g, 2) for g in given)]
    assert all(holds) or len(back[2]) > 1

def test_decode_refuses():
    "Catches a map that is read although it says nothing, or two things."
    m = encode_map(2, "b", [[1, 1, 5, 5]], 16, CLASSES)
    foreign = m.copy()
    foreign[0] = 77
    with pytest.raises(ValueError, match="red is"): decode_map(foreign, CLASSES)
    mixed = m.copy()
    mixed[1:, 8:10, 8:10] = code_table(CLASSES).loc["c"].to_numpy()[:, None, None]
    with pytest.raises(ValueError, match="a map has one pair"): decode_map(mixed, CLASSES)
    with pytest.raises(ValueError, match="in the boxes"): decode_map(m*np.array([1, 0, 0], np.uint8)[:, None, None], CLASSES)

BOX = [[0, 0, 4, 4]]
@pytest.mark.parametrize("wrong, message", [((0, "a", BOX), "types are 1 to 6"), ((7, "a", BOX), "types are 1 to 6"),
                                            ((float("nan"), "a", BOX), "types are 1 to 6"), ((1, "wart", BOX), "unknown condition 'wart'"),
                                            ((1, "a", []), "at least one box"), ((1, "a", [[0, 0, 0, 4]]), "empty"),
                                            ((1, "a", [[5, 5, 4, 9]]), "empty"), ((1, "a", [[0, 0, 17, 4]]), "outside the image of 16 px"),
                                            ((1, "a", [[-1, 0, 4, 4]]), "outside the image"), ((1, "a", [[0, 0, 4.5, 4]]), "whole pixels"),
                                            ((1, "a", [0, 0, 4, 4]), "boxes have shape")])
def test_encode_refuses(wrong, message):
    "Catches a map that is painted wrong instead of refused."
    with pytest.raises(ValueError, match=message): encode_map(*wrong, 16, CLASSES)

# ---- maps for new images

@pytest.fixture(scope="module")
def parts():
    return load_data("phantom", size=64, n=240, classes=["mel", "nv"]).split(dict(train=.5, val=.25, test=.25), 0)

@pytest.fixture(scope="module")
def crops(parts):
    return {name: roi_crops(data, 32, 1, 0) for name, data in parts.items()}

def test_sample_maps(crops):
    "Catches boxes that leave the map or change their size, maps of training images, and a wanted condition that is not given."
    wanted = np.tile([0, 1], 40)
    maps = sample_maps(crops["val"], crops["train"], 80, wanted, shift=.5, seed=3)
    assert maps.label.tolist() == wanted.tolist()
    source = crops["val"].table.set_index("id").boxes
    def side(b): return sorted((x1 - x0, y1 - y0) for x0, y0, x1, y1 in b)
    for b, i in zip(maps.boxes, maps.map_of):
        assert all(0 <= x0 and 0 <= y0 and x1 <= 32 and y1 <= 32 for x0, y0, x1, y1 in b)
        assert all(s in side(source[i]) for s in side(b))
    assert any(b != source[i] for b, i in zip(maps.boxes, maps.map_of))
    assert maps.equals(sample_maps(crops["val"], crops["train"], 80, wanted, shift=.5, seed=3))
    with pytest.raises(DataError, match="held-out images only"): sample_maps(crops["train"], crops["train"], 3)
    only_nv = crops["val"].subset(crops["val"].table.dx == "nv")
    with pytest.raises(DataError, match="no map of mel"): sample_maps(only_nv, crops["train"], 2, [0, 1])

def test_a_subset_of_the_boxes(crops):
    "Catches a sampler that always keeps all boxes, or none."
    two = crops["val"].table.assign(boxes=[((2, 2, 9, 9), (15, 15, 30, 25))]*len(crops["val"]))
    val = ImageData("two", crops["val"].images, None, two, crops["val"].classes, "0")
    assert set(sample_maps(val, crops["train"], 60).boxes.map(len)) == {1, 2}

# ---- networks and losses

@pytest.mark.parametrize("size", MAP_SIZES)
@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
def test_shapes(size, upsampling):
    "Catches a level too many or too few."
    m = torch.rand(2, 3, size, size)*2 - 1
    x = DermGANGenerator(size, 2, upsampling)(m)
    assert x.shape == m.shape and x.abs().max() <= 1
    logits, features = DermGANDiscriminator(2)(m, x)
    assert logits.shape[1:2] == (1,) and features.shape[1] == 16 and features.shape[-1] == logits.shape[-1] + 1

def test_networks_refuse():
    "Catches a size or an upsampling that is built anyhow."
    with pytest.raises(ParameterError, match="size=48"): DermGANGenerator(48)
    with pytest.raises(ParameterError, match="upsampling='bilinear'"): DermGANGenerator(32, 4, "bilinear")

def test_roi_loss_has_no_slope_outside():
    "Catches a loss that is averaged over the whole image, or whose slope leaks beyond the boxes."
    fake, real = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(2, 3, 8, 8)
    roi = torch.zeros(2, 1, 8, 8, dtype=bool)
    roi[0, :, 2:4, 2:6] = True
    loss = roi_loss(fake, real, roi)
    slope, = torch.autograd.grad(loss, fake)
    assert (slope[~roi.expand_as(slope)] == 0).all() and (slope[0][roi[0].expand(3, -1, -1)].abs() - 1/(2*3*8)).abs().max() < 1e-7
    inside = (fake - real)[0][:, 2:4, 2:6].abs().mean()
    assert loss.item() == pytest.approx((inside/2).item(), rel=1e-5)                           # the second image has no box

@pytest.mark.parametrize("dropped", TERMS)
def test_dropping_a_loss_takes_only_its_slope(dropped):
    "Catches weights that are tied to each other."
    torch.manual_seed(0)
    D, real = DermGANDiscriminator(2).eval(), torch.rand(2, 3, 32, 32)*2 - 1
    m = as_input(np.stack([encode_map(1, "a", [[4, 4, 20, 20]], 32, CLASSES)]*2))
    fake = (torch.rand(2, 3, 32, 32)*2 - 1).requires_grad_(True)
    weights = dict(gan=1., rec=10., roi=7., fm=3.)
    def slope(w): return torch.autograd.grad(weighted_sum(generator_terms(D, m, real, fake), w), fake)[0]
    alone = slope({name: weights[name]*(name == dropped) for name in TERMS})
    torch.testing.assert_close(slope(weights) - slope(weights | {dropped: 0.}), alone, rtol=1e-3, atol=1e-6)

@pytest.mark.parametrize("names, passes", [(TERMS, 2), (("gan", "rec"), 1), (("rec", "roi"), 0), (("fm",), 2)])
def test_only_what_counts_is_computed(names, passes):
    "Catches a pass of the discriminator whose loss has weight 0, and a loss that changes with those beside it."
    torch.manual_seed(0)
    D, calls = DermGANDiscriminator(2), []
    D.register_forward_hook(lambda *_: calls.append(1))
    m = as_input(np.stack([encode_map(1, "a", [[4, 4, 20, 20]], 32, CLASSES)]*2))
    real, fake = torch.rand(2, 2, 3, 32, 32)*2 - 1
    terms = generator_terms(D, m, real, fake, names)
    assert list(terms) == [name for name in TERMS if name in names] and len(calls) == passes
    whole = generator_terms(D, m, real, fake)
    assert all(torch.equal(terms[name], whole[name]) for name in terms)

def test_roi_of_reads_the_boxes_of_every_condition():
    "Catches a condition with green or blue at 0 that is taken for bare skin."
    for c in CLASSES:
        m = as_input(encode_map(6, c, [[3, 5, 9, 30]], 32, CLASSES)[None])
        assert roi_of(m).sum() == 6*25 and roi_of(m)[0, 0, 5:30, 3:9].all()

def test_transposed_convolutions_leave_a_grid():
    "Catches a generator that makes a checkerboard although it resizes."
    torch.manual_seed(0)
    maps = np.stack([encode_map(t, "a", [[8, 8, 40, 50]], 64, CLASSES) for t in (1, 3, 6)])
    grids = {up: checkerboard(draw(DermGANGenerator(64, 8, up, 0.), maps)).mean().item() for up in ("resize", "transposed")}
    assert grids["transposed"] > 2*grids["resize"]

# ---- runs

def trained(crops, out_dir, resume=False, **changes):
    "A short run on the training part."
    return train_dermgan(MapData(crops["train"]), CONFIG | changes, str(out_dir), resume, progress="", checkpoint_every=5)

def test_killed_run_goes_on(crops, goes_on):
    "Catches what training depends on and the checkpoint lacks: the falling learning rate, Adam's moments, the order of the data."
    whole = goes_on(lambda folder, **options: trained(crops, folder, **options))
    assert whole["optimizers"]["G"]["param_groups"][0]["lr"] < .2*DermGANConfig().lr           # and it did fall

def test_data_say_size_and_conditions(crops):
    "Catches a configuration of another order of conditions, by which every map would mean another one, or of another size."
    message = "classes: the configuration has nv, mel, the data mel, nv"
    with pytest.raises(ParameterError, match=message): trained(crops, "", classes=("nv", "mel"))
    with pytest.raises(ParameterError, match="size: the configuration has 64, the data 32"): trained(crops, "", size=64)

def test_another_run_is_refused(crops, tmp_path):
    "Catches a checkpoint that is taken up by a run with other weights, another length or other crops, or overwritten."
    trained(crops, tmp_path)
    with pytest.raises(ParameterError, match="holds a run already"): trained(crops, tmp_path)
    with pytest.raises(CheckpointError, match="w_fm was"): trained(crops, tmp_path, True, w_fm=2.)
    with pytest.raises(CheckpointError, match="epochs was 2.*, is 3"): trained(crops, tmp_path, True, epochs=3)
    with pytest.raises(CheckpointError, match="fingerprint was"): trained(dict(train=crops["test"]), tmp_path, True)

def test_load_and_draw(crops, tmp_path):
    "Catches images that depend on more than checkpoint, map and seed, and a checkpoint of something else."
    trained(crops, tmp_path/"run")
    G, config = load_dermgan(tmp_path/"run")
    maps = encode_maps(crops["val"].table.head(3), 32, config.classes)
    a = draw(G, maps, seed=1)
    torch.manual_seed(9)
    assert torch.equal(a, draw(G, maps, seed=1)) and not torch.equal(a, draw(G, maps, seed=2))
    state = torch.get_rng_state()
    draw(G.train(), maps)
    assert torch.equal(state, torch.get_rng_state()) and G.training
    with pytest.raises(CheckpointError, match="holds no checkpoint"): load_dermgan(tmp_path)
    save_checkpoint(tmp_path/"other.safetensors", dict(net={}), dict(width=3))
    message = "no checkpoint of a DermGAN: .*classes: is missing"
    with pytest.raises(CheckpointError, match=message): load_dermgan(tmp_path/"other.safetensors")

# ---- tables of maps, trials of FID

def test_vary_tone(crops):
    "Catches types that are counted over all maps, and maps whose boxes or conditions go astray."
    maps = sample_maps(crops["val"], crops["train"], 5)
    six = vary_tone(maps)
    assert six.skin_type.tolist() == list(range(1, 7))*5 and six["map"].tolist() == np.repeat(np.arange(5), 6).tolist()
    assert six.boxes.tolist() == [b for b in maps.boxes for _ in range(6)] and six.dx.tolist() == np.repeat(maps.dx, 6).tolist()

def test_grow_boxes():
    "Catches boxes that are not centred or do not grow."
    grown = grow_boxes(pd.DataFrame(dict(dx=["a", "b"], skin_type=[1, 2], boxes=[(), ()])), 40, (.25, .5, 1.))
    assert [b[0] for b in grown.boxes[:3]] == [(15, 15, 25, 25), (10, 10, 30, 30), (0, 0, 40, 40)]
    assert grown["map"].tolist() == [0]*3 + [1]*3

def test_fid_trials():
    "Catches trials that are all the same draw, and a spread that is not of the trials."
    x = np.random.default_rng(0).normal(size=(2, 300, 4))
    mean, low, high = fid_trials(*x, 100, 20)
    assert low < mean < high and mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="n=301"): fid_trials(*x, 301)
