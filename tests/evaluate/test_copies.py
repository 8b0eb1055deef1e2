"Copies are found whatever was done to them, innocent images are left alone, and one exact copy is enough."
import numpy as np
import pytest
import torch
from scipy import stats

from medgan.data.images import as_image_data, load_data
from medgan.data.registry import DataError
from medgan.evaluate.copies import (
    DISGUISES,
    copies_of,
    copy_test,
    disguise_table,
    exact_copies,
    held_out_needed,
    in_position,
    nearest_aligned,
)

@pytest.fixture(scope="module")
def parts():
    "Training, held-out and other images that share no group."
    return load_data("phantom", size=64, n=500).split(dict(train=.4, held_out=.4, others=.2))

def pixels_of(data): return data.images[data.rows].copy()

# ---- exact copies

def test_one_among_298(parts):
    "Catches a single exact copy that vanishes among many honest images."
    train = parts["train"]
    images = np.concatenate([pixels_of(parts["held_out"]), pixels_of(parts["others"])])[:298]
    images[123] = pixels_of(train)[45]
    found = exact_copies(images, train)
    assert found[["generated", "real", "position", "difference"]].to_numpy().tolist() == [[123, 45, 0, 0]]
    assert found.real_id[0] == train.table.id[45] and found.generated_id[0] == "123"

@pytest.mark.parametrize("position", range(8))
def test_exact_in_every_position(parts, position):
    "Catches a position that is missing among the eight."
    image = in_position(pixels_of(parts["train"])[[7]], position, (1, 2))
    assert exact_copies(np.ascontiguousarray(image), parts["train"])["real"].tolist() == [7]

def test_rounding_and_no_more(parts):
    "Catches a tolerance of two grey levels, a mean in place of the largest difference, and wrap-around of unsigned bytes."
    image = pixels_of(parts["train"])[[3]]//2*2
    image[0, 0, 0] = 0
    train = as_image_data(np.concatenate([image, 255 - image]))
    one_off, two_off, wrapped = image + 1, image.copy(), image.copy()
    two_off[0, 5, 5] += 2
    wrapped[0, 0, 0] = 255
    assert exact_copies(one_off, train).difference.tolist() == [1]
    assert not len(exact_copies(np.concatenate([two_off, wrapped]), train))

def test_images_of_one_colour_are_nobody():
    "Catches a collapsed generator that is called a copy of an empty slice."
    assert not len(exact_copies(np.zeros((5, 16, 16), np.uint8), np.zeros((3, 16, 16), np.uint8)))

def test_exact_slices_that_are_not_square():
    "Catches a comparison of a slice with its quarter turn, which has other sides."
    slices = np.random.default_rng(0).integers(0, 255, (6, 24, 18, 1), dtype=np.uint8)
    assert exact_copies(slices[2:3, ::-1], slices)["real"].tolist() == [2]

# ---- copies in disguise

def test_every_disguise(parts):
    "Catches a turn, zoom, shift, crop, light or negative by which copies escape: limit from held-out images, all strengths but the last."
    train = parts["train"]
    limit = copy_test([1.], nearest_aligned(parts["held_out"], train).ratio, .01)["limit"]
    n_found, n = 0, 0
    for kind, (strengths, _) in DISGUISES.items():
        for i, strength in enumerate(strengths[1:-1:2]):
            rows = np.arange(10*i, 10*i + 5)
            near = nearest_aligned(copies_of(pixels_of(train)[rows], kind, strength), train)
            n_found += ((near.ratio < limit) & (near["real"] == rows)).sum()
            n += len(rows)
    assert n > 120 and n_found >= .95*n

def test_innocent_images_stay(parts):
    "Catches a limit that cries wolf: of other people's images no more than chance explains lie below it."
    test = copy_test(*(nearest_aligned(parts[name], parts["train"]).ratio for name in ("others", "held_out")), .01)
    assert test["p"] > .01 and test["share"] < .06

def test_what_was_done(parts):
    "Catches a wrong sign of turn or shift, a zoom upside down, and a mirror or a negative that is not named."
    train = parts["train"]
    image = pixels_of(train)[20:26]
    done = nearest_aligned(copies_of(image, "zoom in", 1.2), train)
    assert done["real"].tolist() == [*range(20, 26)] and done.zoom.median() == pytest.approx(1.2, abs=.03)
    done = nearest_aligned(copies_of(255 - image, "position", 4), train)
    assert done.is_negative.all() and (done.position == 4).sum() >= 5
    turned = nearest_aligned(copies_of(image, "turn", 10), train).turn.abs()
    assert turned.median() == pytest.approx(10, abs=1)

def test_second_photographs_are_no_strangers(parts):
    "Catches a neighbourhood that counts a lesion's other photographs: the copy would not stand out among them."
    image = pixels_of(parts["train"])[:1]
    twins = np.concatenate([copies_of(image, "light, factor", f) for f in (.8, .85, .9, .95, 1., 1.05)]*2)
    others, strangers = pixels_of(parts["train"])[50:90], [f"o{i}" for i in range(40)]
    def ratio(names): return nearest_aligned(copy, as_image_data(np.concatenate([twins, others]), groups=[*names, *strangers])).ratio[0]
    copy = copies_of(image, "JPEG", 50)
    assert ratio(["one"]*12) < .7 < .9 < ratio([f"t{i}" for i in range(12)])

def test_few_grey_and_oblong():
    "Catches more candidates than training images, code that counts on three channels, and slices that are not square."
    x = torch.nn.functional.interpolate(torch.rand(9, 1, 8, 6, generator=torch.Generator().manual_seed(0)), (40, 30), mode="bicubic")
    slices = (x.clamp(0, 1)*255).byte().permute(0, 2, 3, 1).numpy()
    near = nearest_aligned(255 - slices[3:5, :, ::-1], slices)
    assert near["real"].tolist() == [3, 4] and near.is_negative.all() and (near.ratio < .3).all()

def test_empty_images(parts):
    "Catches 0/0 where an image has no contrast."
    near = nearest_aligned(np.full((3, 64, 64, 3), 128, np.uint8), parts["train"])
    assert np.isfinite(near.to_numpy(float)).all() and (near.ratio > .9).all()

def test_blocks_do_not_matter(parts):
    "Catches a row of one block that is compared with another block's."
    images, train = parts["others"].subset(range(9)), parts["train"].subset(range(60))
    one, many = (nearest_aligned(images, train, block) for block in (9, 4))
    assert one["real"].tolist() == many["real"].tolist() and np.allclose(one.ratio, many.ratio, atol=1e-3)

# ---- the test

def test_bound_of_the_risk():
    "Catches a bound that belongs to another rank: among 2,000 experiments 5 % have a true risk above it, also at the smallest set."
    rng = np.random.default_rng(0)
    for m, rate in ((199, .005), (999, .005)):
        held = np.sort(rng.random((2000, m)), axis=1)
        tests = [copy_test([.5], h, rate) for h in held]
        above = np.mean([t["limit"] > t["at_most"] for t in tests])
        assert .035 < above < .065 and np.mean([t["limit"] for t in tests]) == pytest.approx(tests[0]["expected"], rel=.1)

def test_needed():
    "Catches a size that is off by one."
    assert [held_out_needed(rate) for rate in (.05, .025, .01, .005)] == [19, 39, 99, 199]
    assert np.isnan(copy_test([1.], np.ones(18), .05)["limit"]) and copy_test([1.], np.ones(19), .05)["limit"] == 1

def test_table_counts(parts):
    "Catches false alarms counted on the set that made the limit, and shares that are not k of n."
    few = {name: part.subset(range(n)) for (name, part), n in zip(parts.items(), (60, 120, 60))}
    table = disguise_table(**few, n=3, strengths=slice(2, 3), false_alarm=.01)
    assert table.kind.tolist() == [*DISGUISES, "no copies"] and (table.n[:-1] == 3).all()
    assert table.n.iloc[-1] == few["others"].table.group.nunique()
    assert table.k[:-1].sum() >= 33 and stats.binomtest(int(table.k.iloc[-1]), int(table.n.iloc[-1]), .01).pvalue > .001
    with pytest.raises(DataError, match="groups are in held_out and in others"):
        disguise_table(few["train"], few["held_out"], few["held_out"], 3)
