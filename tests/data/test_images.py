"One data set of images from anywhere: what is asked for is given or refused, parts keep their rows together."
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_sets import HAM_CLASSES, floats, ham, image_folder, left, pictures, refused

from medgan.data.images import as_image_data, class_counts, joined, load_data
from medgan.data.registry import DataError
from medgan.data.splits import PARTS

@pytest.mark.parametrize("size", [7, 0, -64, 1025, 64.0, "64", True, None, float("nan"), float("inf")])
def test_bad_size(tiny_ham, cache, size):
    "Catches a size that fails (or eats the memory) only while images are decoded."
    with refused(cache, f"size={size!r}", "8 to 1024"): ham(tiny_ham, size=size)

@pytest.mark.parametrize("split", ["training", "Train", "all", None, 1])
def test_bad_split(tiny_ham, cache, split):
    "Catches a misspelt part that gives the whole set, test images included."
    with refused(cache, f"split={split!r}", "'train', 'val', 'test'"): ham(tiny_ham, split=split)

def test_bad_classes(tiny_ham, cache):
    "Catches a misspelt class that is dropped in silence."
    with pytest.raises(DataError, match="'melanoma' not in ham10000; it has akiec, bcc, bkl, df, mel, nv, vasc"):
        ham(tiny_ham, classes=["nv", "melanoma"])

@pytest.mark.parametrize("classes", [[], ["nv", "nv"]])
def test_useless_classes(tiny_ham, cache, classes):
    "Catches an empty data set, and a class that stands there twice and never occurs under its first number."
    with pytest.raises(DataError, match="classes="): ham(tiny_ham, classes=classes)

def test_merged_classes(tiny_ham, cache):
    "Catches a class that lands in the wrong group, one that is not named and stays, and a set that passes for the one it was made of."
    data = load_data("ham10000", tiny_ham, size=16)
    two = data.merge(dict(benign=("nv", "bkl"), malignant=("mel",)))
    assert two.classes == ("benign", "malignant") and two.table.dx.value_counts().to_dict() == dict(benign=12, malignant=6)
    old = data.table.set_index("id").dx[two.table.id]
    assert (two.labels.numpy() == (old == "mel").to_numpy()).all() and set(old) == {"nv", "bkl", "mel"}
    assert torch.equal(two[0]["image"], data[int(np.flatnonzero(data.table.id == two.table.id[0])[0])]["image"])
    assert two.fingerprint != data.select(["nv", "bkl", "mel"]).fingerprint
    with pytest.raises(DataError, match="'melanoma' not in"): data.merge(dict(malignant=("melanoma",)))
    with pytest.raises(DataError, match="each once"): data.merge(dict(benign=("nv",), all=("nv", "mel")))

def test_parts_and_subsets(tiny_ham, cache):
    "Catches a part whose images, labels and rows do not belong together, and parts with one fingerprint."
    whole = ham(tiny_ham)
    parts = {name: ham(tiny_ham, split=name) for name in PARTS}
    assert sum(map(len, parts.values())) == 42 and len({p.fingerprint for p in (whole, *parts.values())}) == 4
    row = {name: i for i, name in enumerate(whole.table.id)}
    for part in parts.values():
        for i, name in enumerate(part.table.id):
            assert torch.equal(part[i]["image"], whole[row[name]]["image"]) and part[i]["label"] == whole[row[name]]["label"]
    counts = class_counts(parts)
    assert list(counts.index) == list(HAM_CLASSES) and counts.filter(like="images").to_numpy().sum() == 42 and (counts > 0).all(axis=None)
    two = ham(tiny_ham, classes=["nv", "mel"])
    assert two.classes == ("nv", "mel") and [two.classes[label] for label in two.labels] == list(two.table.dx) and len(two) == 12
    batch, one = two.read(np.array([3, 11, 3])), two[11]
    assert torch.equal(batch["image"][1], one["image"]) and torch.equal(batch["mask"][1], one["mask"])
    assert torch.equal(batch["image"][0], batch["image"][2])

def test_rectangles_from_anywhere():
    "Catches generated slices of another shape than a square that are refused, or turned."
    data = np.arange(2*16*9, dtype=np.uint16).astype(np.uint8).reshape(2, 16, 9, 1)
    for source in data, torch.from_numpy(data).permute(0, 3, 1, 2)/255:
        assert as_image_data(source).shape == (16, 9) and np.array_equal(as_image_data(source).images, data)

@pytest.mark.parametrize("channels", [1, 3])
def test_forms(channels):
    "Catches a range or an order of axes that is taken for another one: all forms of the same pictures are the same bytes."
    images = pictures(channels=channels)
    x = floats(images)
    forms = [images, torch.from_numpy(images), x, x.numpy(), x.double(), x.half().numpy(), x.clone().requires_grad_(), x.contiguous()]
    if channels == 1: forms += [images[..., 0], torch.from_numpy(images[..., 0])]
    made = [as_image_data(form) for form in forms]
    assert all(np.array_equal(data.images, images) for data in made) and len({data.fingerprint for data in made}) == 1
    assert torch.allclose(made[0].read(np.arange(5))["image"], x, atol=1e-6)
    assert made[0].size == 12 and made[0].masks is None and made[0].classes == ("all",) and made[0].labels.tolist() == [0]*5

def test_all_bytes_survive():
    "Catches rounding that moves a byte: each of the 256 goes to a float and back, and what lies between goes to the nearer one."
    for channels in (1, 3):
        images = np.repeat(np.arange(256, dtype=np.uint8), 4*channels).reshape(256, 2, 2, channels)
        assert np.array_equal(as_image_data(floats(images)).images, images)
    assert as_image_data(torch.full((1, 1, 2, 2), .5/255 + 1e-4)).images.max() == 1

def test_own_memory():
    "Catches a data set that changes after its fingerprint was taken, because the caller changes the array."
    images = pictures()
    data = as_image_data(images)
    images[:] = 0
    assert data.images.any()

def test_table():
    "Catches groups that are all one, ids that sort otherwise than the images, and labels that move."
    data = as_image_data(pictures(12), name="fakes")
    assert list(data.table.id) == [f"{i:02d}" for i in range(12)]
    assert data.table.group.nunique() == 12 and data.name == "fakes"
    assert set(data.table.source) == {"fakes"}
    labels, groups = [1, 0, 1, 1, 0], ["b", "a", "b", "c", "a"]
    for given in (labels, torch.tensor(labels), np.array(labels, np.uint8), pd.Series(labels), ["nv", "mel", "nv", "nv", "mel"],
                  [True, False, True, True, False]):
        data = as_image_data(pictures(), labels=given, groups=groups, classes=["mel", "nv"])
        assert data.labels.tolist() == labels and list(data.table.dx) == ["nv", "mel", "nv", "nv", "mel"]
        assert list(data.table.group) == groups
        assert data.classes == ("mel", "nv")
    numbers = as_image_data(pictures(), labels=[10, 2, 10, 10, 2])
    assert numbers.classes == ("2", "10") and numbers.labels.tolist() == labels
    assert as_image_data(pictures(), labels=["b", "a", "b", "b", "a"]).labels.tolist() == labels
    assert as_image_data(pictures(), groups=torch.tensor([3, 3, 4, 4, 4])).table.group.tolist() == ["3", "3", "4", "4", "4"]
    assert as_image_data(pictures(), labels=labels).select(["1"]).table.id.tolist() == ["0", "2", "3"]

def test_fingerprint():
    "Catches a fingerprint that does not see the pixels, the labels or the groups."
    changed = pictures()
    changed[3, 2, 2, 0] ^= 1
    made = [as_image_data(pictures()), as_image_data(changed), as_image_data(pictures(), labels=[0]*5),
            as_image_data(pictures(), groups=["a"]*5)]
    assert len({data.fingerprint for data in made}) == 4

X = floats(pictures())

FORMS_BAD = dict(
    nan=(X.where(X > -.5, float("nan")), "5 of 5 images hold NaN or infinite values (the first: image 0)"),
    one_nan=(torch.cat([X[:2], X[2:]/0]), "3 of 5 images hold NaN or infinite values (the first: image 2)"),
    infinite=(X.numpy() + np.inf, "NaN or infinite"),
    bytes_as_floats=((X + 1)*127.5, "float values from 0 to 255; allowed are -1 to 1"),
    normalised=(X*2.5, "float values from -2.5 to 2.5; allowed are -1 to 1"),
    grey_in_minus_one=(X[:, :1], "allowed are 0 to 1"),
    unscaled=((X + 1)/2, "all values are in [0,1]; float images of three channels are in [-1,1]: convert them by 2*x-1"),
    black_in_0_1=(torch.zeros(2, 3, 8, 8), "convert them by 2*x-1"),
    one_image=(X[0], "got float32 (3, 12, 12)"),
    one_picture=(pictures()[0], "square, got 12 x 3 px"),
    channels_last=(X.permute(0, 2, 3, 1), "got float32 (5, 12, 12, 3)"),
    channels_first=(pictures().transpose(0, 3, 1, 2), "got uint8 (5, 3, 12, 12)"),
    two_channels=(X[:, :2], "got float32 (5, 2, 12, 12)"),
    alpha=(pictures(channels=4), "got uint8 (5, 12, 12, 4)"),
    flat=(X.flatten(1), "got float32 (5, 432)"),
    grey_floats=(X[:, 0], "got float32 (5, 12, 12)"),
    volume=(pictures()[None], "got uint8 (1, 5, 12, 12, 3)"),
    scalar=(np.zeros(()), "got float64 ()"),
    high=(X[:, :, :6], "images are square, got 6 x 12 px"),
    none=(X[:0], "no images (shape (0, 3, 12, 12))"),
    no_pixels=(X[:, :, :0, :0], "no images"),
    int64=(pictures().astype(np.int64), "uint8 or float, got int64"),
    boolean=(pictures() > 9, "uint8 or float, got bool"),
    objects=(pictures().astype(object), "uint8 or float, got object"),
    a_list=([X[0], X[1]], "got list"), nothing=(None, "got NoneType"))

@pytest.mark.parametrize("source, message", FORMS_BAD.values(), ids=FORMS_BAD)
def test_bad_forms(source, message, cache):
    "Catches images whose metric would be a number, and nonsense: a wrong range, axis, channel or type."
    with refused(cache, "fakes", message): as_image_data(source, name="fakes")

def test_rounding_beyond_the_range():
    "Catches a generator that is refused for 1.0000001."
    x = floats(pictures(1, 8)).clone()
    x[0, 0, 0, 0] = 1.0000001
    assert as_image_data(x).images[0, 0, 0, 0] == 255

COLUMNS_BAD = dict(
    short=(dict(labels=[0]*4), "labels have shape (4,), but there are 5 images"),
    one_hot=(dict(labels=np.eye(5)), "labels have shape (5, 5)"),
    one=(dict(labels=3), "labels have shape ()"),
    groups=(dict(groups=["a"]*6), "groups have shape (6,), but there are 5 images"),
    no_group=(dict(groups=["a", "b", None, "c", "d"]), "group is empty for 1 images (the first: 2)"),
    nan_group=(dict(groups=[1, 2, np.nan, 3, 4]), "group is empty for 1 images (the first: 2)"),
    above=(dict(labels=[0, 1, 2, 0, 1], classes=["nv", "mel"]), "label 2 (image 2); allowed are 0, 1"),
    below=(dict(labels=[0, 1, -1, 0, 1], classes=["nv", "mel"]), "label -1 (image 2); allowed are 0, 1"),
    unknown=(dict(labels=["nv", "bcc", "nv", "nv", "nv"], classes=["nv", "mel"]), "label 'bcc' (image 1); allowed are nv, mel"),
    floats=(dict(labels=[0., 1., 0., 1., 0.]), "whole numbers or class names, got float64"),
    missing=(dict(labels=np.array(["nv", None, "nv", "nv", "nv"], object)), "whole numbers or class names"),
    classes_alone=(dict(classes=["nv"]), "classes are given, but no labels"),
    class_twice=(dict(labels=[0]*5, classes=["nv", "nv"]), "each once"))

@pytest.mark.parametrize("given, message", COLUMNS_BAD.values(), ids=COLUMNS_BAD)
def test_bad_columns(given, message, cache):
    "Catches labels of other images than these, and a class that is wrong by one."
    with refused(cache, "fakes", message): as_image_data(pictures(), name="fakes", **given)

def test_image_data_as_it_is(tiny_ham, cache):
    "Catches a copy (the fingerprint would change), and a size or labels that are ignored in silence."
    data = ham(tiny_ham)
    assert as_image_data(data) is as_image_data(data, size=16) is data
    with pytest.raises(DataError, match="ham10000: size=32, but the images have 16 px"): as_image_data(data, size=32)
    for given in (dict(labels=[0]*42), dict(groups=[0]*42), dict(classes=["nv"])):
        with pytest.raises(DataError, match="has its own labels, groups and classes"): as_image_data(data, **given)
    with pytest.raises(DataError, match="size=16, but the images have 12 px"): as_image_data(X, size=16)
    assert as_image_data(X, size=12).size == 12

def flat_folder(root, images):
    root.mkdir(parents=True)
    for i, pixels in enumerate(images): Image.fromarray(pixels).save(root/f"{i}.png")
    return root

def test_flat_folder(tmp_path, cache):
    "Catches files in another order than their labels (10.png comes before 2.png), hidden files that count, a cache that fills up."
    images = pictures(11)
    root = flat_folder(tmp_path/"made", images)
    (root/".DS_Store").write_bytes(b"x")
    (root/"10.png").rename(root/"10.PNG")
    order = [0, 1, 10, *range(2, 10)]
    for source in (root, str(root)):
        data = as_image_data(source, labels=order)
        assert np.array_equal(data.images, images[order]) and data.table.id[2] == "10.PNG"
        assert data.table.dx.tolist() == list(map(str, order))
        assert data.table.group.nunique() == len(images) and left(cache) == []
    half = as_image_data(root, size=8)
    assert half.size == 8 and half.images.shape == (11, 8, 8, 3)
    with pytest.warns(UserWarning, match="images: the smallest image has 12 px; at size=16") as caught: as_image_data(root, size=16)
    assert Path(caught[0].filename) == Path(__file__)

def test_flat_folder_is_decoded_like_a_set(tmp_path, cache):
    "Catches files that metrics see otherwise than training did."
    root = image_folder(tmp_path/"mine", names=("all",))
    assert np.array_equal(as_image_data(root/"all", size=16).images, load_data("folder", str(root), size=16).images)

def test_flat_folder_of_grey_files(tmp_path):
    "Catches a folder of grey files that cannot be compared with a set of one channel, however they are written; one in colour makes three."
    images = pictures(3, channels=1)
    assert np.array_equal(as_image_data(flat_folder(tmp_path/"made", images[..., 0])).images, images)
    assert np.array_equal(as_image_data(flat_folder(tmp_path/"rgb", images.repeat(3, axis=-1))).images, images)
    assert as_image_data(flat_folder(tmp_path/"colour", np.concatenate([images.repeat(3, axis=-1), pictures(1)]))).images.shape[-1] == 3

@pytest.mark.parametrize("size", [7, 0, -64, 1025, 64.0, "64", True])
def test_flat_folder_bad_size(tmp_path, cache, size):
    "Catches a size that fails (or eats the memory) only while images are decoded."
    with refused(cache, f"size={size!r}"): as_image_data(flat_folder(tmp_path/"made", pictures()), size=size)

def test_flat_folder_bad(tmp_path, cache):
    "Catches a file that is left out in silence: of a thousand images nobody misses one."
    root = flat_folder(tmp_path/"made", pictures())
    with refused(cache, tmp_path/"nowhere", "no folder"): as_image_data(tmp_path/"nowhere")
    with refused(cache, root/"0.png", "no folder"): as_image_data(root/"0.png")
    for make in (lambda p: p.write_text("x"), Path.mkdir):
        make(root/"notes.txt")
        with refused(cache, root/"notes.txt", "no image file", ".jpg"): as_image_data(root)
        (root/"notes.txt").unlink() if (root/"notes.txt").is_file() else (root/"notes.txt").rmdir()
    (root/"folder.png").mkdir()
    with refused(cache, root/"folder.png", "no image file"): as_image_data(root)
    (root/"folder.png").rmdir()
    (tmp_path/"empty").mkdir()
    (tmp_path/"empty"/".hidden.png").write_bytes((root/"0.png").read_bytes())
    with refused(cache, "no images in", tmp_path/"empty"): as_image_data(tmp_path/"empty")
    with refused(cache, "labels have shape (4,), but there are 5 images"): as_image_data(root, labels=[0]*4)
    (root/"3.png").write_bytes((root/"3.png").read_bytes()[:80])
    for size in (None, 8):
        with refused(cache, root/"3.png", "cannot be read"): as_image_data(root, size=size)
    (root/"3.png").write_bytes(b"<html>404</html>")
    for size in (None, 8):
        with refused(cache, root/"3.png", "cannot be read"): as_image_data(root, size=size)

def test_flat_folder_of_several_sizes(tmp_path, cache):
    "Catches images that are stretched, or cut without being asked for."
    root = flat_folder(tmp_path/"made", pictures())
    Image.new("RGB", (14, 14)).save(root/"4.png")
    with refused(cache, "0.png 12x12, 4.png 14x14", "give size="): as_image_data(root)
    assert as_image_data(root, size=8).images.shape == (5, 8, 8, 3)
    with refused(cache, "0.png 20x12", "give size="): as_image_data(flat_folder(tmp_path/"wide", np.zeros((2, 12, 20, 3), np.uint8)))

def test_joined():
    "Catches labels and images that go different ways, and sets that do not fit."
    val, test = (load_data("phantom", size=32, n=400, classes=["mel", "nv"]).subset(range(a, b)) for a, b in ((0, 20), (20, 50)))
    both = joined(val, test)
    assert len(both) == 50 and both.masks is None and torch.equal(both.labels, torch.cat([val.labels, test.labels]))
    assert np.array_equal(both.images, np.concatenate([part.images[part.rows] for part in (val, test)]))
    larger = load_data("phantom", size=64, n=20, classes=["mel", "nv"])
    with pytest.raises(DataError, match="do not fit together"): joined(val, larger)

def test_groups_of_images_in_memory():
    "Catches two sets whose images count as one group because they have one number, and one image that counts as two."
    a, b = as_image_data(pictures(6)), as_image_data(pictures(6)[::-1].copy()[:3])
    other = as_image_data(255 - pictures(6))
    assert a.table.group.nunique() == 6 and set(b.table.group) < set(a.table.group) and not set(a.table.group) & set(other.table.group)
