"The DermGAN notebook refuses bad parameters; its maps, crops, losses and runs keep what they promise."
import numpy as np
import pandas as pd
import pytest
import torch
from nbdev.config import get_config
from PIL import Image

from medgan.data.images import ImageData, as_image_data, load_data
from medgan.data.registry import DataError
from medgan.data.phantoms_skin import boxes
from medgan.core.checks import ParameterError
from medgan.training.checkpoints import CheckpointError, save_checkpoint
from medgan.data.images import joined
from medgan.dermgan import (SIZES, TERMS, DermGANDiscriminator, DermGANGenerator, MapData, as_input, box_iou,
                            checkerboard, code_table, decode_map, draw, encode_map, encode_maps, fid_trials,
                            generator_terms, grow_boxes, load_dermgan, place_response, region_boxes, roi_crops,
                            roi_loss, roi_of, sample_maps, skin_types, tone_and_lesion, tone_response, train_dermgan,
                            vary_tone, weighted_sum)
from medgan.networks.augmentation import ConventionalAugmentation

NOTEBOOK = get_config().nbs_path/"02_dermgan.ipynb"
CONFIG = dict(size=32, width=4, upsampling="resize", dropout=.5, weights=dict(gan=1., rec=10., roi=10., fm=1.), lr=2e-4, beta1=.5, batch_size=8,
              epochs=2, precision="no", seed=0, classes=["mel", "nv"])
CLASSES = ["a", "b", "c"]

# ---- the notebook's own checks

def test_good_set_up(run_notebook):
    "Catches a setup cell that refuses its own defaults."
    assert run_notebook(NOTEBOOK, "epochs = 1")["epochs"] == 1

BAD = [("data = 'ham1000'", DataError, "data='ham1000': no such data set"), ("size = 48", ParameterError, "size=48: must be one of 32, 64, 128, 256"),
       ("epochs = 0", ParameterError, "epochs=0"), ("batch_size = 1", ParameterError, "batch_size=1"), ("lr = 0", ParameterError, "lr=0"),
       ("seed = -1", ParameterError, "seed=-1"), ("epocs = 3", ParameterError, "no such parameter: epocs"), ("resume = True", ParameterError, "out_dir is empty"),
       ("w_roi = -1", ParameterError, "w_roi=-1"), ("w_gan = w_rec = w_roi = w_fm = 0", ParameterError, "at least one loss must count"),
       ("dropout = 1", ParameterError, "dropout=1"), ("n_crops = 0", ParameterError, "n_crops=0"), ("n_maps = 2", ParameterError, "n_maps=2"),
       ("grid_epochs = -1", ParameterError, "grid_epochs=-1"), ("precision = 'fp8'", ParameterError, "precision='fp8'"), ("n_seeds = 1", ParameterError, "n_seeds=1"),
       ("classifier_epochs = 1.5", ParameterError, "classifier_epochs=1.5"), ("n_trial = 1", ParameterError, "n_trial=1")]

@pytest.mark.parametrize("injected, error, message", BAD, ids=[b[0][:24] for b in BAD])
def test_bad_set_up(injected, error, message, refuses):
    "Catches a parameter that the setup cell does not check."
    refuses(NOTEBOOK, injected, error, message)

@pytest.mark.parametrize("injected, error, message", [("classes = 'nv'", ParameterError, "one condition only"), ("classes = 'nv, wart'", DataError, "'wart' not in phantom"),
                                                      ("boxes_csv = 'none.csv'", DataError, "phantom")])
def test_bad_data(injected, error, message, run_notebook):
    "Catches a single condition, an unknown one, and boxes for a set that has masks of its own."
    with pytest.raises(error, match=message): run_notebook(NOTEBOOK, f"{injected}; n_phantoms = 60", until="K < 2")

def clinical_set(folder):
    "A small Fitzpatrick17k of phantoms in its publisher's layout, with boxes (two in some images) in a CSV; gives the CSV."
    drawn = load_data("phantom", size=96, n=240, classes=["mel", "nv"])
    rows, marks = [], []
    (folder/"images").mkdir(parents=True)
    for i, mine in enumerate(drawn.roi_boxes()):
        name = f"{i:032x}"
        Image.fromarray(drawn.images[drawn.rows[i]]).save(folder/"images"/f"{name}.jpg", quality=90)
        rows.append(dict(md5hash=name, fitzpatrick_scale=-1 if i % 7 == 0 else int(drawn.table.skin_type[i]), fitzpatrick_centaur=-1, label=drawn.table.dx[i],
                         nine_partition_label="x", three_partition_label="x", qc="", url="", url_alphanum=""))
        marks += [(name, *box) for box in mine] + ([(name, 0, 0, 9, 9)] if i % 5 == 0 else [])
    pd.DataFrame(rows).to_csv(folder/"fitzpatrick17k.csv", index=False)
    pd.DataFrame(marks, columns=["id", "x0", "y0", "x1", "y1"]).to_csv(folder/"boxes.csv", index=False)
    return folder/"boxes.csv"

@pytest.mark.filterwarnings("ignore")
def test_clinical_set_with_boxes(tmp_path, cache, run_notebook, capsys):
    "Catches a notebook that needs lesion masks, a skin type for every image, or one box an image: the public clinical sets have none of these."
    table = clinical_set(tmp_path/"fitzpatrick17k")
    small = "epochs = .3; width = 4; n_maps = 6; batch_size = 8; seed = 1"
    scope = run_notebook(NOTEBOOK, f"data = 'fitzpatrick17k'; data_dir = {str(tmp_path)!r}; boxes_csv = {str(table)!r}; {small}", until="place_tables = {}")
    assert scope["crops"]["train"].masks is None and not scope["place_tables"] and "size and place are shown below, and not measured" in capsys.readouterr().out
    assert {1, 2} <= set(scope["crops"]["train"].table.boxes.map(len))
    assert scope["crops"]["train"].table.skin_type.between(1, 6).all() and np.isfinite(scope["tone_table"].value).all()

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
    for x0, y0, x1, y1 in given: assert any((b[:2] <= (x0, y0)).all() and (b[2:] >= (x1, y1)).all() for b in back[2]) or len(back[2]) > 1

def test_region_boxes_by_hand():
    "Catches a decoder that takes the enclosing box, and one that cuts a cross into pieces."
    cross = [[0, 5, 20, 9], [8, 0, 12, 20]]
    assert region_boxes(encode_map(1, "a", cross, 20, CLASSES)[1:].any(0)).tolist() == cross
    whole = [[0, 0, 20, 20]]
    assert region_boxes(encode_map(1, "a", whole, 20, CLASSES)[1:].any(0)).tolist() == whole

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

@pytest.mark.parametrize("wrong, message", [((0, "a", [[0, 0, 4, 4]]), "types are 1 to 6"), ((7, "a", [[0, 0, 4, 4]]), "types are 1 to 6"),
                                            ((float("nan"), "a", [[0, 0, 4, 4]]), "types are 1 to 6"), ((1, "wart", [[0, 0, 4, 4]]), "unknown condition 'wart'"),
                                            ((1, "a", []), "at least one box"), ((1, "a", [[0, 0, 0, 4]]), "empty"), ((1, "a", [[5, 5, 4, 9]]), "empty"),
                                            ((1, "a", [[0, 0, 17, 4]]), "outside the map of 16 px"), ((1, "a", [[-1, 0, 4, 4]]), "outside the map"),
                                            ((1, "a", [[0, 0, 4.5, 4]]), "whole pixels"), ((1, "a", [0, 0, 4, 4]), "boxes have shape")])
def test_encode_refuses(wrong, message):
    "Catches a map that is painted wrong instead of refused."
    with pytest.raises(ValueError, match=message): encode_map(*wrong, 16, CLASSES)

# ---- crops

@pytest.fixture(scope="module")
def parts():
    return load_data("phantom", size=64, n=240, classes=["mel", "nv"]).split(dict(train=.5, val=.25, test=.25), 0)

@pytest.fixture(scope="module")
def crops(parts):
    return {name: roi_crops(data, 32, 1, 0) for name, data in parts.items()}

def test_crops_keep_box_and_mask_together(parts):
    "Catches x and y mixed up, and a mask or a box that is not cut like its image."
    crops = roi_crops(parts["train"], 32, 2, 1)
    assert len(crops) == 2*len(parts["train"]) and crops.table.id.is_unique and set(crops.table.crop_of) == set(parts["train"].table.id)
    single = crops.table.boxes.map(len) == 1
    tight, given = boxes(crops.masks)[single], np.array([b[0] for b in crops.table.boxes[single]])
    assert single.mean() > .9 and np.abs(tight - given).max() <= 2 and box_iou(tight, given).mean() > .9
    assert crops.table.group.equals(crops.table.crop_of.map(parts["train"].table.set_index("id").group))

def test_crops_are_seeded(parts):
    "Catches windows that depend on anything but the seed."
    a, b, c = (roi_crops(parts["val"], 32, 1, seed) for seed in (0, 0, 1))
    assert a.fingerprint == b.fingerprint != c.fingerprint and np.array_equal(a.images, b.images)

def test_crops_leave_out_and_say_so(parts, capsys):
    "Catches an image without a box that is cropped anywhere, or left out in silence; and a set of which nothing is left."
    data = parts["val"]
    table = data.table.assign(boxes=[() if i == 0 else ((4, 4, 20, 30),) for i in range(len(data))])
    some = ImageData(data.name, data.images, None, table, data.classes, "0", data.rows)
    cut = roi_crops(some, 32)
    assert len(cut) == len(data) - 1 and f"1 of {len(data)} images left out" in capsys.readouterr().out and cut.masks is None
    none = ImageData(data.name, data.images, None, table.assign(boxes=[()]*len(table)), data.classes, "0", data.rows)
    with pytest.raises(DataError, match="none of .* images has a region of interest"): roi_crops(none, 32)
    bare = as_image_data(np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(DataError): roi_crops(bare, 32)

def test_skin_types_are_estimated_only_where_unknown(parts):
    "Catches an estimate that overwrites what the set says, and a NaN that stays."
    data = parts["train"]
    types = data.table.skin_type.to_numpy(float).copy()
    types[::2] = np.nan
    half = ImageData(data.name, data.images, data.masks, data.table.assign(skin_type=types), data.classes, "0", data.rows)
    found = skin_types(half)
    assert np.array_equal(found[1::2], types[1::2]) and not np.isnan(found).any()
    assert np.abs(found - data.table.skin_type).max() <= 2 and np.abs(found - data.table.skin_type).mean() < .6

def test_sample_maps(crops):
    "Catches boxes that leave the map or change their size, maps of training images, and a wanted condition that is not given."
    wanted = np.tile([0, 1], 40)
    maps = sample_maps(crops["val"], crops["train"], 80, wanted, shift=.5, seed=3)
    assert maps.label.tolist() == wanted.tolist()
    source = crops["val"].table.set_index("id").boxes
    side = lambda b: sorted((x1 - x0, y1 - y0) for x0, y0, x1, y1 in b)
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

@pytest.mark.parametrize("size", SIZES)
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
    assert loss.item() == pytest.approx(((fake - real)[0][:, 2:4, 2:6].abs().mean()/2).item(), rel=1e-5)      # the second image has no box

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

def test_roi_of_reads_the_boxes_of_every_condition():
    "Catches a condition with green or blue at 0 that is taken for bare skin."
    for c in CLASSES:
        m = as_input(encode_map(6, c, [[3, 5, 9, 30]], 32, CLASSES)[None])
        assert roi_of(m).sum() == 6*25 and roi_of(m)[0, 0, 5:30, 3:9].all()

def test_transposed_convolutions_leave_a_grid():
    "Catches a measure that does not see the checkerboard, and a generator that makes it although it resizes."
    torch.manual_seed(0)
    maps = np.stack([encode_map(t, "a", [[8, 8, 40, 50]], 64, CLASSES) for t in (1, 3, 6)])
    grids = {up: checkerboard(draw(DermGANGenerator(64, 8, up, 0.), maps)).mean().item() for up in ("resize", "transposed")}
    assert grids["transposed"] > 2*grids["resize"]

# ---- runs

def trained(crops, out_dir, config=CONFIG, **options): return train_dermgan(MapData(crops["train"]), config, str(out_dir), progress="", **options)

def test_killed_run_goes_on(crops, goes_on):
    "Catches anything that training depends on and that the checkpoint lacks: the falling learning rate, Adam's moments, the order of the data."
    whole = goes_on(lambda folder, **options: trained(crops, folder, checkpoint_every=5, **options))
    assert whole["optimizers"]["G"]["param_groups"][0]["lr"] < .2*CONFIG["lr"]              # and it did fall

def test_another_run_is_refused(crops, tmp_path):
    "Catches a checkpoint that is taken up by a run with other weights, another length or other crops, or overwritten."
    trained(crops, tmp_path)
    with pytest.raises(ParameterError, match="holds a run already"): trained(crops, tmp_path)
    with pytest.raises(CheckpointError, match="weights was"): trained(crops, tmp_path, CONFIG | dict(weights=CONFIG["weights"] | dict(fm=2.)), resume=True)
    with pytest.raises(CheckpointError, match="epochs was 2, is 3"): trained(crops, tmp_path, CONFIG | dict(epochs=3), resume=True)
    with pytest.raises(CheckpointError, match="fingerprint was"): trained(dict(train=crops["test"]), tmp_path, resume=True)

def test_load_and_draw(crops, tmp_path):
    "Catches images that depend on more than checkpoint, map and seed, and a checkpoint of something else."
    trained(crops, tmp_path/"run")
    G, config = load_dermgan(tmp_path/"run")
    maps = encode_maps(crops["val"].table.head(3), 32, config["classes"])
    a = draw(G, maps, seed=1)
    torch.manual_seed(9)
    assert torch.equal(a, draw(G, maps, seed=1)) and not torch.equal(a, draw(G, maps, seed=2))
    state = torch.get_rng_state()
    draw(G.train(), maps)
    assert torch.equal(state, torch.get_rng_state()) and G.training
    with pytest.raises(CheckpointError, match="holds no checkpoint"): load_dermgan(tmp_path)
    save_checkpoint(tmp_path/"other.safetensors", dict(net={}), dict(width=3))
    with pytest.raises(CheckpointError, match="no checkpoint of a DermGAN: classes"): load_dermgan(tmp_path/"other.safetensors")

# ---- measurements

def painted(maps, size=32):
    "Images that obey their maps perfectly: six tones of skin, a lesion that fills its boxes and darkens with the skin."
    images = np.empty((len(maps), size, size, 3), np.uint8)
    for image, t, given in zip(images, maps.skin_type, maps.boxes):
        skin = np.array([235, 200, 175]) - 26*(t - 1)
        image[:] = skin
        for x0, y0, x1, y1 in given: image[y0:y1, x0:x1] = skin//2
    return images

def test_responses_of_a_perfect_generator(crops):
    "Catches a sign or an axis mixed up: a generator that does what it is told scores 1."
    maps = vary_tone(sample_maps(crops["val"], crops["train"], 12))
    small = maps.assign(boxes=[((4 + i % 5, 5, 14 + i % 7, 20),) for i in range(len(maps))])
    images = painted(small)
    real = pd.DataFrame(dict(skin_type=range(1, 7), ita=0.)).assign(ita=[50., 40, 30, 20, 10, 0])
    tone = tone_response(small, tone_and_lesion(images, small.boxes), real).value
    assert tone["tone, rank correlation"] > .99 and tone["lesion darkens with the skin"] > .99
    filled = encode_maps(small, 32, ["mel", "nv"])[:, 1:].any(1)
    place = place_response(small, filled).value
    assert place.tolist() == pytest.approx([1, 1, 1])
    shifted = place_response(small, np.roll(filled, 8, 2)).value
    assert shifted["box IoU, median"] < .5 and shifted["area, rank correlation"] == pytest.approx(1)
    assert place_response(small, filled & (np.arange(len(small)) % 2 == 0)[:, None, None]).value["lesion found"] == .5

def test_responses_refuse(crops):
    "Catches a judgement of maps that cannot be judged."
    table = pd.DataFrame(dict(boxes=[((0, 0, 4, 4), (8, 8, 12, 12))]*4))
    with pytest.raises(DataError, match="0 maps with a single box"): place_response(table, np.zeros((4, 32, 32), bool))
    filled = pd.DataFrame(dict(boxes=[((0, 0, 32, 32),)]*6, skin_type=range(1, 7), map=0))
    with pytest.raises(DataError, match="no image shows skin outside its boxes"): tone_response(filled, tone_and_lesion(painted(filled), filled.boxes), pd.DataFrame(dict(skin_type=[1], ita=[1.])))

def test_grow_boxes():
    "Catches boxes that are not centred or do not grow."
    grown = grow_boxes(pd.DataFrame(dict(dx=["a", "b"], skin_type=[1, 2], boxes=[(), ()])), 40, (.25, .5, 1.))
    assert [b[0] for b in grown.boxes[:3]] == [(15, 15, 25, 25), (10, 10, 30, 30), (0, 0, 40, 40)] and grown["map"].tolist() == [0]*3 + [1]*3

def test_fid_trials():
    "Catches trials that are all the same draw, and a spread that is not of the trials."
    x = np.random.default_rng(0).normal(size=(2, 300, 4))
    mean, low, high = fid_trials(*x, 100, 20)
    assert low < mean < high and mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="n=301"): fid_trials(*x, 301)

def test_augmentation():
    "Catches an augmentation that is on when the net is tested, leaves [-1,1], or treats all images of a batch alike."
    augment, x = ConventionalAugmentation(), torch.rand(64, 3, 16, 16)*2 - 1
    assert torch.equal(augment.eval()(x), x)
    y = augment.train()(x[:1].expand(64, -1, -1, -1))
    assert y.abs().max() <= 1 and len(torch.unique(y.mean((1, 2, 3)))) > 32

def test_joined(crops):
    "Catches labels and images that go different ways, and sets that do not fit."
    both = joined(crops["val"], crops["test"])
    assert len(both) == len(crops["val"]) + len(crops["test"]) and torch.equal(both.labels, torch.cat([crops["val"].labels, crops["test"].labels]))
    assert np.array_equal(both.images[-1], crops["test"].images[-1]) and both.masks is None
    with pytest.raises(DataError, match="do not fit together"): joined(crops["val"], load_data("phantom", size=64, n=20, classes=["mel", "nv"]))

# ---- real data

def test_ham10000(real_data, monkeypatch, tmp_path):
    "Catches crops of HAM10000 whose boxes miss the lesion, and a lesion on two sides."
    data = load_data("ham10000", str(real_data), 64)
    parts = data.split(dict(train=.6, reserve=.15, val=.1, test=.15), 0)
    crops = {name: roi_crops(parts[name].subset(np.arange(200)), 32, 1, 0) for name in ("train", "val")}
    assert not set(crops["train"].table.group) & set(crops["val"].table.group)
    for c in crops.values():
        single = c.table.boxes.map(len) == 1
        assert box_iou(boxes(c.masks)[single], np.array([b[0] for b in c.table.boxes[single]])).mean() > .85
    assert len(sample_maps(crops["val"], crops["train"], 10)) == 10
