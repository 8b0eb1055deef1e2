"Boxes lie on what they were drawn for, wherever the image was cut; every bad row of a file is named."
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import CALLER, boxes_csv, ham, left, pictures, slices, toy_slices

from medgan.data.images import ImageData, as_image_data, load_data
from medgan.data.registry import DataError

BOXES = [("ISIC_0000000", 10, 8, 20, 15), ("ISIC_0000301", 0, 0, 40, 30), ("ISIC_0000000", 30, 20, 38, 30),
         ("ISIC_0000002", 0, 3, 6, 30), ("ISIC_0000002", 0, 0, 5, 30)]

@pytest.mark.parametrize("header", ["id,x0,y0,x1,y1", "image_id,x0,y0,x1,y1"])
def test_boxes(tiny_ham, cache, header):
    "Catches boxes not moved with the crop, x taken for y, an image's second box lost, rows shifted, a box beside the square kept."
    with pytest.warns(UserWarning, match="ham10000: 1 of 5 boxes lie outside the centre square and are dropped") as caught:
        data = ham(tiny_ham, size=30, boxes=boxes_csv(tiny_ham, BOXES, header))
    assert Path(caught[0].filename) == CALLER
    boxes = data.table.set_index("id").boxes
    assert boxes["ISIC_0000000"] == ((5, 8, 15, 15), (25, 20, 30, 30)) and boxes["ISIC_0000301"] == ((0, 0, 30, 30),)
    assert boxes["ISIC_0000002"] == ((0, 3, 1, 30),) and (boxes.map(len) > 0).sum() == 3 and boxes["ISIC_0000001"] == ()
    assert all(type(x) is int for box in boxes["ISIC_0000000"] for x in box)
    with pytest.warns(UserWarning): half = ham(tiny_ham, size=15, boxes=boxes_csv(tiny_ham, BOXES)).table.set_index("id").boxes
    assert half["ISIC_0000000"] == ((2, 4, 8, 8), (12, 10, 15, 15))          # 2.5 and 7.5: whatever the box touches

def test_boxes_lie_on_their_lesions(tmp_path, cache):
    "Catches any mistake between file and square: a white patch is drawn into each image, of any shape, and its box given."
    rng, rows = np.random.default_rng(8), []
    (tmp_path/"mine"/"a").mkdir(parents=True)
    for i in range(20):
        width, height = rng.integers(60, 200, 2)
        x0, y0 = rng.integers(0, width - 20), rng.integers(0, height - 20)
        x1, y1 = rng.integers(x0 + 15, width + 1), rng.integers(y0 + 15, height + 1)
        pixels = np.zeros((height, width), np.uint8)
        pixels[y0:y1, x0:x1] = 255
        Image.fromarray(pixels).save(tmp_path/"mine"/"a"/f"{i:02d}.png")
        rows.append((f"a/{i:02d}", x0, y0, x1, y1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        data = load_data("folder", str(tmp_path/"mine"), size=48, boxes=boxes_csv(tmp_path, rows))
    seen = data.images[..., 0] >= 128
    assert seen.any(axis=(1, 2)).sum() > 10
    for found, mask in zip(data.roi_boxes(), seen):
        if not mask.any(): continue
        y, x = mask.nonzero()
        assert np.abs(found[0] - [x.min(), y.min(), x.max() + 1, y.max() + 1]).max() <= 1

def test_boxes_of_slices(tmp_path, cache):
    "Catches boxes of slices that are cut like photographs, whose squares are padded instead (here by 5 px to the left)."
    arrays = toy_slices()
    slices(tmp_path, **arrays)
    ids = load_data("slices", str(tmp_path), size=30).table.id
    data = load_data("slices", str(tmp_path), size=30, boxes=boxes_csv(tmp_path, [(ids[1], 5, 8, 12, 14)]))
    assert data.table.boxes[1] == (tuple(data[1]["box"].tolist()),) == ((10, 8, 17, 14),)

def test_boxes_go_along(tiny_ham, cache):
    "Catches boxes that stay with row numbers when a part is taken; boxes that the fingerprint or a second opening does not see."
    path = boxes_csv(tiny_ham, BOXES[:3])
    whole, parts = ham(tiny_ham, boxes=path), ham(tiny_ham, boxes=path).split()
    of = dict(zip(whole.table.id, map(np.ndarray.tolist, whole.roi_boxes())))
    for part in (*parts.values(), whole.select(["nv", "akiec"]), whole.subset([3, 0, 30])):
        assert [b.tolist() for b in part.roi_boxes()] == [of[i] for i in part.table.id]
    assert len(left(cache)) == 1 and ham(tiny_ham, boxes=path).fingerprint == whole.fingerprint != ham(tiny_ham).fingerprint
    assert ham(tiny_ham, boxes=boxes_csv(tiny_ham, BOXES[:2])).fingerprint != whole.fingerprint and "boxes" not in ham(tiny_ham).table

BOXES_BAD = dict(
    right=([("ISIC_0000301", 30, 0, 41, 30)], "line 2 (ISIC_0000301, 30, 0, 41, 30): not inside its image of 40x30 px"),
    below=([BOXES[0], ("ISIC_0000301", 0, 0, 40, 31)], "line 3 (ISIC_0000301, 0, 0, 40, 31): not inside"),
    left=([("ISIC_0000301", -1, 0, 40, 30)], "not inside"), above=([("ISIC_0000301", 0, -.5, 40, 30)], "-0.5, 40, 30): not inside"),
    turned=([("ISIC_0000301", 20, 0, 10, 30)], "empty box"), flat=([("ISIC_0000301", 0, 9, 40, 9)], "an empty box: x1 > x0 and y1 > y0"),
    word=([("ISIC_0000301", 0, "top", 40, 30)], "(ISIC_0000301, 0, top, 40, 30): x0, y0, x1, y1 are not all numbers"),
    blank=([("ISIC_0000301", 0, "", 40, 30)], "not all numbers"), nan=([("ISIC_0000301", 0, "nan", 40, 30)], "not all numbers"),
    endless=([("ISIC_0000301", 0, 0, "inf", 30)], "not all numbers"),
    unknown=([("ISIC_9999999", 0, 0, 40, 30), ("ISIC_9999998", 0, 0, 40, 30)],
             "line 2 (ISIC_9999999, 0, 0, 40, 30): ham10000 has no image of this id; 2 such rows"),
    no_id=([("", 0, 0, 40, 30)], "id is empty in line 2"), none=([], "has no rows"))

@pytest.mark.parametrize("rows, message", BOXES_BAD.values(), ids=BOXES_BAD)
def test_boxes_bad(tiny_ham, cache, rows, message):
    "Catches a box that is cut, turned or dropped in silence, so that a lesion lies elsewhere than the map says."
    with pytest.raises(DataError) as caught: ham(tiny_ham, boxes=boxes_csv(tiny_ham, rows))
    assert message in str(caught.value) and str(tiny_ham/"boxes.csv") in str(caught.value)

def test_boxes_bad_file(tiny_ham, cache):
    "Catches a KeyError of pandas, x and width taken for corners, and boxes that a drawn set ignores."
    names = "id or image_id or isic_id or image_name or image or img_id"
    for header, column in (("id,x,y,w,h", "x0, y0, x1, y1"), ("name,x0,y0,x1,y1", names), ("id,x0,y0,x1,y", "y1")):
        with pytest.raises(DataError, match=f"boxes.csv: column {column} is missing; the file has"):
            ham(tiny_ham, boxes=boxes_csv(tiny_ham, BOXES, header))
    with pytest.raises(DataError, match="nowhere.csv is not there"): ham(tiny_ham, boxes="nowhere.csv")
    with pytest.raises(DataError, match="boxes='boxes.csv' is for sets of files"): load_data("phantom", size=16, n=60, boxes="boxes.csv")

def of_masks(masks): # bool (N,H,W)
    data = as_image_data(np.zeros((*masks.shape, 3), np.uint8))
    return ImageData("toy", data.images, masks, data.table, data.classes, "")

def test_regions():
    "Catches parts that grow together across images, that are counted by row of the set instead of the subset, or lost at a chunk's end."
    rng, masks, truth = np.random.default_rng(3), np.zeros((600, 32, 32), bool), []
    for mask in masks:
        kept = []
        for y in (1, 17):
            for x in (1, 17):
                if rng.random() < .5: continue
                w, h = rng.integers(2, 14, 2)
                mask[y:y + h, x:x + w] = True
                kept.append([x, y, x + w, y + h])
        truth.append(kept)
    found = of_masks(masks).roi_boxes()
    assert [b.tolist() for b in found] == truth and all(b.shape[1:] == (4,) and b.dtype.kind == "i" for b in found)
    order = rng.permutation(600)[:300]
    assert [b.tolist() for b in of_masks(masks).subset(order).roi_boxes()] == [truth[i] for i in order]

def test_regions_specks():
    "Catches specks that count, a share of the mask instead of the image, and an image whose only lesion is a speck and has no box."
    masks = np.zeros((3, 50, 50), bool)
    masks[:2, 30, 30] = True                                                 # 1 of 2500 px
    masks[0, :4, :5] = True
    masks[0, 40:42, 40:43] = True                                            # 6 px, .0024
    data = of_masks(masks)
    assert [b.tolist() for b in data.roi_boxes()] == [[[0, 0, 5, 4], [40, 40, 43, 42]], [[30, 30, 31, 31]], []]
    assert [len(b) for b in data.roi_boxes(min_share=.003)] == [1, 1, 0] and [len(b) for b in data.roi_boxes(min_share=0)] == [3, 1, 0]

def test_regions_touching_at_a_corner():
    "Catches one lesion that a thin diagonal cuts in two."
    assert of_masks(np.eye(8, dtype=bool)[None]).roi_boxes()[0].tolist() == [[0, 0, 8, 8]]

def test_regions_without_masks(cache):
    "Catches whole images taken for regions where nothing is known."
    with pytest.raises(DataError, match="images has neither masks nor boxes"): as_image_data(pictures()).roi_boxes()
