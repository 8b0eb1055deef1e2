"The privacy report finds copies in disguise and leaves innocent images alone, on phantoms and on HAM10000; bad sets are refused."
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from medgan.analysis.privacy import (
    SPACES,
    authenticity,
    closest_pairs,
    duplicate_table,
    image_vectors,
    membership_attack,
    nearest_real,
    plant_duplicates,
    privacy_report,
)
from medgan.data.images import as_image_data, load_data
from medgan.data.registry import DataError
from medgan.data.splits import group_codes
from medgan.evaluate.copies import DISGUISES, copies_of, copy_test
from medgan.evaluate.features import load_extractor

@pytest.fixture(scope="module")
def phantoms():
    "Training, held-out and other images; the others stand for a perfect generator."
    return load_data("phantom", size=64, n=1400).split(dict(train=.35, held_out=.4, others=.25))

@pytest.fixture(scope="module")
def small():
    "The same, 32 px and fewer, for what needs no statistics."
    return load_data("phantom", size=32, n=400, phantom_seed=1).split(dict(train=.4, held_out=.3, others=.3))

def pixels_of(data): return data.images[data.rows].copy()

def with_copies(others, train, seed=0):
    "The others, a copy of each kind of disguise among them, at its third strength; and the rows of either."
    rng, images, n = np.random.default_rng(seed), pixels_of(others), len(DISGUISES)
    rows, victims = rng.permutation(len(images))[:n], rng.permutation(len(train))[:n]
    for row, victim, (kind, (strengths, _)) in zip(rows, victims, DISGUISES.items()):
        images[row] = copies_of(train.images[train.rows[[victim]]], kind, strengths[2], seed)[0]
    return images, rows, victims

# ---- copies

def check_acceptance(train, held_out, others):
    "A copy in each disguise: all but one found, with their originals; and no more innocent images called copies than the rate explains."
    images, rows, victims = with_copies(others, train)
    report = privacy_report(images, train, held_out)
    found = np.any([near.is_copy[rows].to_numpy() & (near["real"][rows].to_numpy() == victims) for near in report.nearest.values()], axis=0)
    innocent = np.setdiff1d(np.arange(len(images)), rows)
    k = np.any([near.is_copy[innocent] for near in report.nearest.values()], axis=0).sum()
    assert found.sum() >= len(rows) - 1
    assert stats.binomtest(int(k), len(innocent), .01).pvalue > .01 or k < .01*len(innocent)     # at most 1 %, as the bound has it
    verdicts = report.table.set_index(["question", "space"]).verdict
    assert verdicts["copies", "aligned"] == "copies found"
    assert verdicts["copies", "any space"] == "copies found, 1 of them exact"                   # the one that was only turned
    assert (verdicts["membership, AUC"] == "members cannot be told").all()

def test_planted_copies_of_phantoms(phantoms):
    "Catches a space, a turn or a limit by which copies escape, and a report that cries wolf."
    check_acceptance(**phantoms)

def test_planted_copies_of_ham10000(real_data):
    "Catches limits that only suit phantoms: lesions look alike, and some stand there under two names."
    train, held_out, others = load_data("ham10000", str(real_data), 64).split(seed=0).values()
    check_acceptance(train.subset(range(1000)), held_out.subset(range(420)), others.subset(range(200)))

def test_rate_over_many_splits():
    "Catches a limit that is one rank too high: over 30 splits of phantoms the false alarms are what was asked for, on average."
    data, k, n = load_data("phantom", size=32, n=1200), 0, 0
    for seed in range(30):
        train, held_out, others = data.split(dict(train=.3, held_out=.5, others=.2), seed=seed).values()
        test = copy_test(*(nearest_real(part, train).ratio for part in (others, held_out)), .01)
        k, n = k + test["k"], n + test["n"]
    assert .004 < k/n < .016          # twenty-odd images of each split; the groups in them make the average uncertain by a fifth

def test_one_exact_copy_is_a_finding(small):
    "Catches a single training image among honest ones that is no sign of copies, because it changes no statistics."
    images, train = pixels_of(small["others"]), small["train"]
    images[9] = pixels_of(train)[31, ::-1]
    report = privacy_report(images, train, small["held_out"], false_alarm=.05)
    verdicts = report.table.set_index(["question", "space"]).verdict
    assert verdicts["exact copies", "all pixels"] == f"1 of {len(images)} images is a training image, pixel by pixel"
    assert verdicts["copies", "any space"] == "copies found, 1 of them exact"
    assert report.exact[["generated", "real", "real_id"]].to_numpy().tolist() == [[9, 31, train.table.id[31]]]
    shown = np.asarray(Image.open(io.BytesIO(closest_pairs(report, space="exact").data)).convert("RGB"))
    assert shown.shape[1] > 2*32

def test_exact_copy_with_few_held_out(small):
    "Catches an exact copy that needs a yardstick: where the held-out set is too small for the rest, it is found all the same."
    images, train = pixels_of(small["others"]), small["train"]
    images[2] = pixels_of(train)[5]
    report = privacy_report(images, train, small["held_out"].subset(range(40)))
    verdicts = report.table.set_index(["question", "space"]).verdict
    assert verdicts["copies", "aligned"] == "cannot tell: held_out needs 399 images in each space"
    assert verdicts["copies", "any space"] == "copies found, 1 of them exact"

def test_extractor_trained_on_members(real_data):
    "Catches a skin extractor that knows the images it was trained on: members would seem to be told although nobody saw them."
    train, held_out, others = load_data("ham10000", str(real_data), 64).split(seed=0).values()
    attack = membership_attack(others.subset(range(500)), train, held_out, "features", load_extractor("skin"))
    assert attack["low"] < .5 < attack["high"]

def test_features_row(small):
    "Catches a report that loses the third space: 64 px or not, plain copies are found there too."
    images, train = pixels_of(small["others"])[:40], small["train"]
    images[:20] = pixels_of(train)[:20]
    report = privacy_report(images, train, small["held_out"].subset(range(80)), load_extractor("skin"), false_alarm=.05)
    assert list(report.nearest) == list(SPACES) and len(report.table) == 9
    assert report.nearest["features"].is_copy[:20].all()

def test_repeated_training_images(small):
    "Catches a neighbourhood made of one image: in an oversampled training set a copy has fifty originals, all equally near."
    train = small["train"]
    images = pixels_of(small["others"])
    images[5] = pixels_of(train)[7]
    repeated = train.subset(np.repeat(np.arange(len(train)), 60))
    report = privacy_report(images, repeated, small["held_out"], false_alarm=.05)
    assert report.nearest["pixels"].is_copy[5]
    assert (pixels_of(report.train)[report.nearest["pixels"]["real"][5]] == images[5]).all()

def test_grey_images():
    "Catches code that counts on three channels: brain slices have one, in [0,1]."
    coarse = torch.rand(400, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)
    generated = torch.cat([x[300:], x[:5].flip(3)])
    report = privacy_report(generated, x[:150], x[150:300], false_alarm=.05)
    assert report.nearest["pixels"].is_copy[-5:].all() and report.nearest["aligned"].is_copy[-5:].all()
    shown = np.asarray(Image.open(io.BytesIO(closest_pairs(report, 4).data)).convert("RGB"))
    assert (shown == shown[..., :1]).all()

def test_empty_images(small):
    "Catches 0/0 where an image has no contrast: a collapsed generator copies nobody."
    images = pixels_of(small["others"])
    images[:30] = 128
    report = privacy_report(images, small["train"], small["held_out"], false_alarm=.05)
    for near in report.nearest.values():
        assert np.isfinite(near.to_numpy(float)).all()
    assert not report.nearest["pixels"].is_copy[:30].any()

def test_ratio_beats_distance(phantoms):
    "Catches a rule by distance alone: a grainy copy of a pale image is farther from it than honest images are from theirs."
    train = phantoms["train"]
    noise = np.random.default_rng(0).normal(0, 12, (200, 64, 64, 3))
    grainy = (pixels_of(train)[:200] + noise).clip(0, 255).astype(np.uint8)
    near, honest = nearest_real(grainy, train), nearest_real(phantoms["held_out"], train)
    assert copy_test(near.distance, honest.distance)["share"] < .92 < .96 < copy_test(near.ratio, honest.ratio)["share"]

def test_same_answer_twice(small):
    "Catches a random choice without a seed, and sets that are changed."
    sets = [small[name] for name in ("others", "train", "held_out")]
    before = [pixels_of(data) for data in sets]
    a, b = (privacy_report(*sets, false_alarm=.05) for _ in range(2))
    assert a.table.equals(b.table) and all((x == pixels_of(data)).all() for x, data in zip(before, sets))
    assert "no exact copy" in repr(a) and "<table" in a._repr_html_()

def test_closest_pairs_are_pairs(small):
    "Catches an index into another set than the one that is shown."
    train, images = small["train"], pixels_of(small["others"])
    images[3] = pixels_of(train)[11][:, ::-1]
    near = privacy_report(images, train, small["held_out"], false_alarm=.05).nearest
    for space in near: assert near[space].ratio.idxmin() == 3 and near[space]["real"][3] == 11

@pytest.mark.parametrize("space", ["pixels", "aligned"])
def test_every_turn(small, space):
    "Catches a turn that is missing among the eight, or stands there twice."
    train = small["train"]
    for turn in range(8):
        image = np.rot90(pixels_of(train)[9:10, :, ::-1 if turn > 3 else 1], turn % 4, (1, 2))
        near = nearest_real(np.ascontiguousarray(image), train, space)
        assert near["real"][0] == 9 and near.distance[0] < .01

def test_more_neighbours_than_images(small):
    "Catches topk beyond the end."
    near = nearest_real(small["others"], small["train"].subset(range(5)))
    assert near.ratio.between(0, 1).all() and near["real"].max() < 5

# ---- authenticity, membership, duplicates

def test_authenticity_by_hand():
    "Catches < for >, the wrong neighbour, and a nearest one out of the own group."
    train = np.array([[0.], [1.], [10.], [10.5]])
    new = np.array([[.4], [-2.], [12.], [0.]])       # nearest: 0 (its own nearest at 1), 0, 10.5 (.5 away), 0
    assert authenticity(new, train).tolist() == [False, True, True, False]
    assert authenticity(new, train, groups=["a", "b", "c", "c"]).tolist() == [False, True, False, False]

def test_attack_on_strangers():
    "Catches an attack that finds members where the generator saw nobody: 20 experiments, about one may miss 0.5."
    attacks = []
    for seed in range(20):
        data = load_data("phantom", size=32, n=400, classes=["nv", "bkl", "mel"], phantom_seed=seed)
        parts = data.split(dict(train=.4, held_out=.4, others=.2), seed=seed)
        attacks.append(membership_attack(parts["others"], parts["train"], parts["held_out"]))
    covered = sum(a["low"] <= .5 <= a["high"] for a in attacks)
    assert covered >= 17 and abs(np.mean([a["auc"] for a in attacks]) - .5) < .03
    assert min(a["p"] for a in attacks) > .001

def test_attack_on_copies(small):
    "Catches a score with the wrong sign, and an AUC of 1 whose interval is not defined."
    train = small["train"]
    report = privacy_report(pixels_of(train), train, small["held_out"], false_alarm=.05)
    rows = report.table[report.table.question == "membership, AUC"]
    assert (rows.value > .99).all() and (rows.verdict == "members can be told").all()
    assert (report.table.verdict[1:3] == "copies found").all() and len(report.exact) >= len(train)
    assert report.table.verdict[4] == "nearer to the training set than held-out images"

def test_extractor_that_knows_one_side(small):
    "Catches a space of features that tells members because it was trained on them itself, without a word."
    knows = replace(load_extractor("skin"), seen=tuple(group_codes(small["train"].table.group).tolist()))
    with pytest.warns(UserWarning, match="trained on the groups of 100% of the images of train and of 0% of held_out") as caught:
        privacy_report(small["others"], small["train"], small["held_out"], knows, false_alarm=.05)
    assert caught[0].filename == __file__

def test_planted_rows(small):
    "Catches repeats that are off by one, and images that are planted twice."
    planted = plant_duplicates(small["train"], (2, 5), n_each=10, seed=3)
    times = planted.table.groupby("id").repeats.agg(["size", "first"])
    assert (times["size"] == times["first"]).all() and len(times) == len(small["train"])
    assert times["size"].value_counts()[[2, 5]].tolist() == [10, 10] and "repeats" not in small["train"].table
    with pytest.raises(DataError, match="200 images are to be repeated"): plant_duplicates(small["train"], (2, 5), n_each=100)

def test_duplicates_found(small):
    "Catches a table that mixes up the images: exactly those that were drawn are found."
    planted = plant_duplicates(small["train"], (2, 5), n_each=10)
    drawn = np.flatnonzero((planted.table.repeats == 5) & ~planted.table.id.duplicated())
    table = duplicate_table(planted.images[planted.rows[drawn]], planted, small["held_out"], false_alarm=.05)
    assert table.k.to_dict() == {1: 0, 2: 0, 5: 10} and table.n[5] == 10
    with pytest.raises(DataError, match="needs 199"): duplicate_table(small["others"], planted, small["held_out"])

# ---- what is refused

def test_too_few_held_out(small):
    "Catches a verdict without grounds: 100 held-out images cannot show a rate of 1 in 200."
    report = privacy_report(small["others"], small["train"], small["held_out"].subset(range(100)))
    assert (report.table.verdict[1:4] == "cannot tell: held_out needs 399 images in each space").all()
    assert report.table.value[1:4].isna().all() and not report.nearest["pixels"].is_copy.any()

def test_refused_sets(small):
    "Catches sets that cannot be compared, and yardsticks that are part of what they measure."
    train, held_out, others = small["train"], small["held_out"], small["others"]
    def refused(message, *sets):
        with pytest.raises(DataError, match=message): privacy_report(*sets)
    refused("held_out is missing", others, train, None)
    refused("generated has 32 x 32 px, 3 channel.*train has 16 x 16 px", others, pixels_of(train)[:, ::2, ::2], held_out)
    refused("generated has 32 x 32 px, 1 channel", pixels_of(others)[..., 0], train, held_out)
    refused("generated has 19 images: at least 20", others.subset(range(19)), train, held_out)
    of_the_same = as_image_data(255 - pixels_of(train)[:30], groups=train.table.group[:30])
    refused("groups are in train and in held_out", others, train, of_the_same)
    refused("30 images of held_out are also in train", others, train, train.subset(range(30)))
    refused("30 images of held_out are also in train", others, pixels_of(train), pixels_of(train)[:30])
    of_one_person = [as_image_data(pixels_of(data), groups=["x"]*len(data)) for data in (train, held_out)]
    refused("1 groups are in train and in held_out .the first: x", others, *of_one_person)
    refused("got list", [1, 2], train, held_out)

def test_no_groups_is_no_overlap(small):
    "Catches numbers of images taken for names of patients: plain arrays have no groups to overlap."
    privacy_report(pixels_of(small["others"]), pixels_of(small["train"]), pixels_of(small["held_out"]))

@pytest.mark.parametrize("options, message", [
    (dict(false_alarm=0), "false_alarm=0"), (dict(false_alarm=.6), "false_alarm=0.6"),
    (dict(false_alarm="low"), "false_alarm='low'")])
def test_refused_rates(small, options, message):
    "Catches a rate in percent."
    sets = [small[name] for name in ("others", "train", "held_out")]
    with pytest.raises(ValueError, match=message): privacy_report(*sets, **options)

def test_refused_spaces(small):
    "Catches a space that does not exist, and features without an extractor."
    with pytest.raises(ValueError, match="space='pixel': must be one of"):
        nearest_real(small["others"], small["train"], "pixel")
    with pytest.raises(ValueError, match="needs an extractor"): image_vectors(small["train"], "features")
    with pytest.raises(ValueError, match="kind='blurred'"): copies_of(pixels_of(small["train"]), "blurred", 1)
