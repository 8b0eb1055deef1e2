"Crops keep image, mask and boxes together, depend on the seed alone, say what they leave out; a region tells its boxes."
import numpy as np
import pytest

from medgan.data.crops import background, box_groups, box_iou, check_boxes, region_boxes, roi_crops, skin_types
from medgan.data.images import ImageData, as_image_data, load_data
from medgan.data.phantoms_skin import boxes
from medgan.data.registry import DataError

@pytest.fixture(scope="module")
def parts():
    return load_data("phantom", size=64, n=240, classes=["mel", "nv"]).split(dict(train=.5, val=.25, test=.25), 0)

def with_table(data, masks=None, **columns):
    "The same images with other columns."
    return ImageData(data.name, data.images, masks, data.table.assign(**columns), data.classes, "0", data.rows)

# ---- background and skin type

def test_background_is_at_the_border():
    "Catches a rule that takes a dark lesion for a frame, skin for cloth, or a frame of which only three sides are looked at."
    skin = np.full((1, 24, 24, 3), (200, 150, 120), np.uint8)
    assert not background(skin).any()
    for side in (np.s_[0, :3], np.s_[0, -3:], np.s_[0, :, :3], np.s_[0, :, -3:]):
        for colour in ((10, 10, 10), (60, 120, 70), (60, 70, 120)):
            framed = skin.copy()
            framed[side] = colour
            framed[0, 10:14, 10:14] = colour                                # the same in the middle is a lesion
            assert background(framed).sum() == 3*24 and background(framed)[side].all()

def test_skin_types_are_estimated_only_where_unknown(parts):
    "Catches an estimate that overwrites what the set says, and a NaN that stays."
    data = parts["train"]
    types = data.table.skin_type.to_numpy(float).copy()
    types[::2] = np.nan
    found = skin_types(with_table(data, data.masks, skin_type=types))
    assert np.array_equal(found[1::2], types[1::2]) and not np.isnan(found).any()
    assert np.abs(found - data.table.skin_type).max() <= 2 and np.abs(found - data.table.skin_type).mean() < .6

def test_no_skin_no_type():
    "Catches a type that is read off the lesion where an image shows nothing else."
    data = as_image_data(np.full((2, 16, 16, 3), 150, np.uint8))
    table = data.table.assign(boxes=[((0, 0, 16, 16),), ((4, 4, 8, 8),)])
    assert np.isnan(skin_types(ImageData("grey", data.images, None, table, data.classes, "0"))).tolist() == [True, False]

# ---- boxes

@pytest.mark.parametrize("wrong, message", [([], "at least one box"), ([[0, 0, 0, 4]], "empty"), ([[5, 5, 4, 9]], "empty"),
                                            ([[0, 0, 17, 4]], "outside the image of 16 px"), ([[-1, 0, 4, 4]], "outside the image"),
                                            ([[0, 0, 4.5, 4]], "whole pixels"), ([0, 0, 4, 4], "boxes have shape")])
def test_check_boxes(wrong, message):
    "Catches a box that is taken although it is none."
    with pytest.raises(ValueError, match=message): check_boxes(wrong, 16)

def test_box_iou_is_symmetric():
    "Catches x and y mixed up, and an intersection that counts where boxes lie apart in one direction only."
    rng = np.random.default_rng(0)
    low = rng.integers(0, 20, (2, 200, 2))
    a, b = (np.concatenate([corner, corner + rng.integers(1, 20, corner.shape)], 1) for corner in low)
    grid = np.zeros((2, 200, 40, 40), bool)
    for masks, given in zip(grid, (a, b)):
        for mask, (x0, y0, x1, y1) in zip(masks, given): mask[y0:y1, x0:x1] = True
    by_pixel = (grid[0] & grid[1]).sum((1, 2))/(grid[0] | grid[1]).sum((1, 2))
    assert np.allclose(box_iou(a, b), by_pixel) and np.allclose(box_iou(b, a), by_pixel) and (by_pixel == 0).any()

def test_box_groups_are_chains():
    "Catches groups that need every box next to every other, and a gap that is measured in one direction only."
    chain = np.array([[0, 0, 5, 5], [30, 30, 35, 35], [6, 0, 11, 5], [12, 0, 17, 5]])
    assert [g.tolist() for g in box_groups(chain, 1)] == [[0, 2, 3], [1]]
    assert [g.tolist() for g in box_groups(np.array([[0, 0, 5, 5], [0, 20, 5, 25]]), 10)] == [[0], [1]]

@pytest.mark.parametrize("seed", range(20))
def test_region_there_and_back(seed):
    "Catches boxes that are cut at the border, lost where they overlap, or that cover more than they did."
    rng, size = np.random.default_rng(seed), 48
    low = rng.integers(0, size - 1, (rng.integers(1, 6), 2))
    region, back = np.zeros((2, size, size), bool)
    for x0, y0, x1, y1 in np.concatenate([low, np.minimum(low + rng.integers(1, 25, low.shape), size)], 1): region[y0:y1, x0:x1] = True
    for x0, y0, x1, y1 in region_boxes(region): back[y0:y1, x0:x1] = True
    assert np.array_equal(region, back)

def test_region_boxes_by_hand():
    "Catches a decoder that takes the enclosing box, and one that cuts a cross into pieces."
    region = np.zeros((20, 20), bool)
    region[5:9] = region[:, 8:12] = True
    assert region_boxes(region).tolist() == [[0, 5, 20, 9], [8, 0, 12, 20]]
    assert region_boxes(np.ones((20, 20), bool)).tolist() == [[0, 0, 20, 20]]

# ---- crops

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
    cut = roi_crops(with_table(data, boxes=[() if i == 0 else ((4, 4, 20, 30),) for i in range(len(data))]), 32)
    assert len(cut) == len(data) - 1 and f"1 of {len(data)} images left out" in capsys.readouterr().out and cut.masks is None
    with pytest.raises(DataError, match="none of .* images has a region of interest"): roi_crops(with_table(data, boxes=[()]*len(data)), 32)
    with pytest.raises(DataError): roi_crops(as_image_data(np.zeros((3, 32, 32, 3), np.uint8)), 32)

# ---- real data

def test_ham10000(real_data):
    "Catches crops of HAM10000 whose boxes miss the lesion, and a lesion on two sides."
    parts = load_data("ham10000", str(real_data), 64).split(dict(train=.6, reserve=.15, val=.1, test=.15), 0)
    crops = {name: roi_crops(parts[name].subset(np.arange(200)), 32, 1, 0) for name in ("train", "val")}
    assert not set(crops["train"].table.group) & set(crops["val"].table.group)
    for c in crops.values():
        single = c.table.boxes.map(len) == 1
        assert box_iou(boxes(c.masks)[single], np.array([b[0] for b in c.table.boxes[single]])).mean() > .85
