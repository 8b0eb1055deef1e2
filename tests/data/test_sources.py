"Photographs and drawings are decoded as they are; every broken file is named; a kind of one's own needs no other change."
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_sets import boxes_csv, edit_zip, ham, image_folder, left, refused, unzip

from medgan.data import registry
from medgan.data.images import load_data
from medgan.data.registry import DataError, register
from medgan.data.sources import DrawnSource, FileSource, Originals, PhotoSource

@pytest.mark.parametrize("damage", [lambda b: b[:len(b)//2], lambda b: b"", lambda b: b"<html>404</html>", lambda b: b[:30]],
                         ids=["half", "empty", "html", "header only"])
def test_broken_jpeg(tiny_ham, cache, damage):
    "Catches a grey lower half (a decoder that loads truncated images), and an error that does not name the file."
    edit_zip(tiny_ham/"HAM10000_images_part_1.zip", lambda files: files.update({"ISIC_0000202.jpg": damage(files["ISIC_0000202.jpg"])}))
    with refused(cache, "1 of 42 images cannot be read", "HAM10000_images_part_1.zip::ISIC_0000202.jpg", tiny_ham): ham(tiny_ham)

def test_broken_jpeg_unpacked(tiny_ham, cache):
    "The same with files in folders."
    unzip(tiny_ham)
    path = tiny_ham/"HAM10000_images_part_1"/"ISIC_0000202.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with refused(cache, "1 of 42 images cannot be read", path): ham(tiny_ham)

def test_zip_damaged_inside(tiny_ham, cache):
    "Catches wrong bytes inside an archive (the sum of the entry tells)."
    path = tiny_ham/"HAM10000_images_part_2.zip"
    data = bytearray(path.read_bytes())
    data[200:240] = bytes(40)
    path.write_bytes(data)
    with refused(cache, "1 of 42 images cannot be read", path): ham(tiny_ham)

def test_mask_of_another_size(tiny_ham, cache):
    "Catches a mask that is resized to its image in silence: it may be a thumbnail, or another image's."
    name = "HAM10000_segmentations_lesion_tschandl/ISIC_0000202_segmentation.png"
    smaller = io.BytesIO()
    Image.new("L", (20, 15), 255).save(smaller, "PNG")
    edit_zip(tiny_ham/"HAM10000_segmentations_lesion_tschandl.zip", lambda files: files.update({name: smaller.getvalue()}))
    with refused(cache, "1 of 42", f"tschandl.zip::{name} (the mask has 20x15 px, its image", "ISIC_0000202.jpg 40x30"): ham(tiny_ham)

def test_broken_mask(tiny_ham, cache):
    "Catches a mask that cannot be read and is taken for an empty one."
    name = "HAM10000_segmentations_lesion_tschandl/ISIC_0000202_segmentation.png"
    edit_zip(tiny_ham/"HAM10000_segmentations_lesion_tschandl.zip", lambda files: files.update({name: files[name][:60]}))
    with refused(cache, "1 of 42 images cannot be read", f"tschandl.zip::{name}"): ham(tiny_ham)

def test_many_broken_jpegs(tiny_ham, cache):
    "Catches a message of thousands of names: five are enough."
    edit_zip(tiny_ham/"HAM10000_images_part_1.zip", lambda files: files.update({n: b"x" for n in files}))
    with refused(cache, "21 of 42 images cannot be read"): ham(tiny_ham)
    with pytest.raises(DataError) as caught: ham(tiny_ham)
    assert str(caught.value).count(".jpg") == 5

def test_small_images(tmp_path, cache):
    "Catches silence where 30-px images are blown up to 64, at the first opening and at later ones."
    root = image_folder(tmp_path/"mine")
    for _ in range(2):
        with pytest.warns(UserWarning, match="30 px; at size=64"): load_data("folder", str(root), size=64)

def test_drawn_rectangles(cache):
    "Catches code that takes drawn pictures for squares of three channels."
    def draw(table, size): return np.full((len(table), size, size//2, 1), 7, np.uint8), np.ones((len(table), size, size//2), bool)
    register("drawn", classes=("a",), draw=draw)(lambda n=3: pd.DataFrame(dict(id=[f"{i}" for i in range(n)], dx="a", group="g")))
    try: data = load_data("drawn", size=16, n=4)
    finally: del registry._SPECS["drawn"]
    assert data.shape == (16, 8) and data[1]["image"].shape == (1, 16, 8) and data[1]["box"].tolist() == [0, 0, 8, 16]
    assert data[1]["image"].max() < .1
    assert data.roi_boxes()[0].tolist() == [[0, 0, 8, 16]]

def test_drawn_shares_and_sizes():
    "Catches width and height exchanged, and a share of something else than the whole picture."
    def draw(table, size):
        masks = np.zeros((len(table), size, size//2), bool)
        masks[0, :2] = True
        return np.zeros((*masks.shape, 1), np.uint8), masks
    images, masks, found = DrawnSource(draw).make("drawn", pd.DataFrame(dict(id=["a", "b"])), 16)
    assert images.shape == (2, 16, 8, 1) and found.sizes.tolist() == [[8, 16]]*2 and found.shares.tolist() == [1/8, 0]

# ---- a kind of one's own

class Levels(FileSource):
    "A number a file: a slice of that grey with a white lesion in its upper rows, half as wide as high; the number is its lesion's height."
    channels, version = 1, "levels 1"

    def shape(self, size): return size, size//2

    def decode(self, name, table, size, images, masks):
        levels = np.array([int(Path(path).read_text()) for path in table.image])
        images[...] = levels[:, None, None, None]
        masks[...] = np.arange(size)[None, :, None] < levels[:, None, None]
        images[masks] = 255
        return Originals(np.full((len(table), 2), (size//2, size)), levels/size)

    def judged(self, table, shares): return table.assign(share=shares)

@pytest.fixture
def levels(tmp_path):
    "The folder of a set of that kind, registered with `shade=` as its reader's option."
    @register("levels", classes=("low", "high"), marker="*.level")
    def read(folder, shade=""):
        paths = sorted(folder.glob("*.level"))
        dx = ["high" if int(path.read_text()) > 4 else "low" for path in paths]
        source = Levels()
        source.version += shade
        table = dict(id=[path.stem for path in paths], dx=dx, group=[f"b{path.stem}" for path in paths], image=map(str, paths))
        return pd.DataFrame(table).assign(mask=lambda t: t.image), source
    (tmp_path/"levels").mkdir()
    for i in range(9): (tmp_path/"levels"/f"{i}.level").write_text(str(i))
    yield tmp_path/"levels"
    del registry._SPECS["levels"]

def test_a_source_of_ones_own(levels, cache, monkeypatch):
    "Catches code outside of a source that asks what kind of set it has, or knows only the kinds that medgan has."
    data = load_data("levels", str(levels), size=16)
    assert data.shape == (16, 8) and data[5]["image"].shape == (1, 16, 8) and data.classes == ("low", "high")
    assert data.images[5, :, 0, 0].tolist() == [255]*5 + [5]*11 and data.labels.tolist() == [0]*5 + [1]*4
    assert data.masks[:, :, 0].sum(1).tolist() == list(range(9)) and data.table.share.tolist() == [i/16 for i in range(9)]
    assert data.roi_boxes()[3].tolist() == [[0, 0, 8, 3]] and len(load_data("levels", str(levels), size=16, split="train")) == 3
    monkeypatch.setattr(Levels, "decode", lambda *_: pytest.fail("decoded again"))
    again = load_data("levels", str(levels), size=16)
    assert again.fingerprint == data.fingerprint and again.table.share.equals(data.table.share) and len(left(cache)) == 1

def test_a_source_of_ones_own_is_seen_by_the_cache(levels, cache):
    "Catches a cache that shows the old pictures of a changed file or of another way to decode, and boxes moved as if for photographs."
    first = load_data("levels", str(levels), size=16)
    (levels/"8.level").write_text("10")
    assert load_data("levels", str(levels), size=16).images[8, 9, 0, 0] == 255 and len(left(cache)) == 2
    load_data("levels", str(levels), size=16, shade="; dark")
    assert len(left(cache)) == 3
    boxed = load_data("levels", str(levels), size=16, boxes=boxes_csv(levels, [("3", 0, 0, 8, 3), ("4", 2, 1, 6, 16)]))
    assert boxed.table.boxes[3:5].tolist() == [((0, 0, 8, 3),), ((2, 1, 6, 16),)] and boxed.fingerprint != first.fingerprint

def test_a_source_without_its_columns(levels, cache):
    "Catches an AttributeError of pandas where a reader forgets the column that its source needs."
    register("levels", marker="*.level")(lambda folder: pd.DataFrame(dict(id=["a"], dx="x", group="g")))
    with refused(cache, "the reader of levels: column image is missing"): load_data("levels", str(levels), size=16)

def masked(folder, masks): # name -> PIL image
    "A set of the kind of `levels`: photographs with these masks."
    rows = []
    for i, (name, mask) in enumerate(masks.items()):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)).save(folder/f"{name}.png")
        mask.save(folder/f"{name}_mask.png")
        rows.append(dict(id=name, image=str(folder/f"{name}.png"), mask=str(folder/f"{name}_mask.png")))
    return PhotoSource().make("masked", pd.DataFrame(rows), 16)[1]

def test_masks_of_every_kind(tmp_path):
    "Catches masks of 0 and 1 that come out empty, palettes read as numbers, masks in the transparency, a third value guessed at."
    spot = np.zeros((16, 16), bool)
    spot[3:9, 4:13] = True
    palette = Image.fromarray(spot.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    alpha = np.zeros((16, 16, 4), np.uint8)
    alpha[..., 3] = spot*255
    kinds = dict(full=Image.fromarray(spot*np.uint8(255)), ones=Image.fromarray(spot.astype(np.uint8)), bits=Image.fromarray(spot),
                 palette=palette, alpha=Image.fromarray(alpha), deep=Image.fromarray(spot.astype(np.uint16)*65535),
                 none=Image.new("L", (16, 16)))
    for name, mask in zip(kinds, masked(tmp_path, kinds)): assert np.array_equal(mask, spot & (name != "none")), name
    three = np.where(spot, np.uint8(255), np.uint8(0))
    three[0, 0] = 128
    with pytest.raises(DataError, match="three_mask.png .a mask has two values .*this one has 3: 0, 128, 255"):
        masked(tmp_path, dict(three=Image.fromarray(three)))
    with pytest.raises(DataError, match="all 2 masks are empty"):
        masked(tmp_path, dict(a=Image.new("L", (16, 16)), b=Image.new("1", (16, 16))))
