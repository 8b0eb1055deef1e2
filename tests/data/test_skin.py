"HAM10000 in every layout of its publishers, folders of classes, phantoms: labels, groups, masks."
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_sets import HAM_CLASSES, ham, image_folder, left, refused, unzip

from medgan.data.images import load_data

@pytest.fixture
def plain(tiny_ham, cache):
    "Fingerprints of the zip layout, with and without masks."
    with_masks = ham(tiny_ham).fingerprint
    (tiny_ham/"HAM10000_segmentations_lesion_tschandl.zip").rename(tiny_ham.parent/"kept.zip")
    without = ham(tiny_ham).fingerprint
    (tiny_ham.parent/"kept.zip").rename(tiny_ham/"HAM10000_segmentations_lesion_tschandl.zip")
    assert with_masks != without
    return with_masks, without

def test_layout_of_dataverse(tiny_ham, cache):
    "Catches a wrong label order, shifted rows and flipped axes: every image, label and mask is compared with a plain reading of its file."
    data = ham(tiny_ham, size=30)
    assert data.classes == HAM_CLASSES and len(data) == 42 and data.table.group.nunique() == 28
    assert list(data.table.id) == sorted(data.table.id)
    metadata = pd.read_csv(tiny_ham/"HAM10000_metadata").set_index("image_id")
    files = {}
    for path in tiny_ham.glob("*.zip"):
        with zipfile.ZipFile(path) as archive: files |= {Path(n).name: archive.read(n) for n in archive.namelist()}
    for i, row in data.table.iterrows():
        lesion = row.group.removeprefix("ham10000/")
        assert (row.dx, lesion) == tuple(metadata.loc[row.id, ["dx", "lesion_id"]]) and data.labels[i] == HAM_CLASSES.index(row.dx)
        crop = lambda name: np.asarray(Image.open(io.BytesIO(files[name])))[:, 5:35]
        sample = data[i]
        assert sample["image"].shape == (3, 30, 30) and sample["image"].dtype == torch.float32 and sample["label"] == data.labels[i]
        assert np.abs((sample["image"].permute(1, 2, 0).numpy() + 1)*127.5 - crop(f"{row.id}.jpg")).max() < 1e-3
        mask = crop(f"{row.id}_segmentation.png") >= 128
        assert sample["mask"].shape == (1, 30, 30) and np.array_equal(sample["mask"][0].numpy(), mask)

def test_layout_unpacked(tiny_ham, plain):
    "Catches a reader for zip files only."
    unzip(tiny_ham)
    assert ham(tiny_ham).fingerprint == plain[0]

def test_layout_half_unpacked(tiny_ham, plain):
    "Catches a reader that takes the folders and forgets the zip beside them."
    unzip(tiny_ham, "HAM10000_images_part_1.zip")
    assert ham(tiny_ham).fingerprint == plain[0]

def test_layout_both(tiny_ham, plain):
    "Catches that a zip beside its unpacked folder counts as images that stand there twice."
    with zipfile.ZipFile(tiny_ham/"HAM10000_images_part_1.zip") as archive: archive.extractall(tiny_ham/"HAM10000_images_part_1")
    assert ham(tiny_ham).fingerprint == plain[0]

@pytest.mark.parametrize("ending, separator", [(".csv", ","), (".tab", "\t"), ("", "\t")])
def test_layout_metadata(tiny_ham, plain, ending, separator):
    "Catches a fixed file name, and a comma where Dataverse's .tab has tabs."
    table = pd.read_csv(tiny_ham/"HAM10000_metadata")
    (tiny_ham/"HAM10000_metadata").unlink()
    table.to_csv(tiny_ham/f"HAM10000_metadata{ending}", sep=separator, index=False)
    assert ham(tiny_ham).fingerprint == plain[0]

def test_layout_of_kaggle(tiny_ham, plain):
    "Catches Kaggle's copy of the folders in small letters and its tables of pixels."
    (tiny_ham/"HAM10000_segmentations_lesion_tschandl.zip").unlink()
    unzip(tiny_ham)
    for part in "12": shutil.copytree(tiny_ham/f"HAM10000_images_part_{part}", tiny_ham/f"ham10000_images_part_{part}", dirs_exist_ok=True)
    (tiny_ham/"hmnist_28_28_RGB.csv").write_text("pixel0000,label\n192,2\n")
    table = pd.read_csv(tiny_ham/"HAM10000_metadata").drop(columns="dataset")
    (tiny_ham/"HAM10000_metadata").unlink()
    table.to_csv(tiny_ham/"HAM10000_metadata.csv", index=False)
    data = ham(tiny_ham)
    assert data.fingerprint == plain[1] and data.masks is None and "mask" not in data[0]

def test_folder(tmp_path, cache):
    "Catches that files of one name in two classes are taken for one image, and a label order that is not the names'."
    root = image_folder(tmp_path/"mine", names=("malignant", "benign", ".hidden"))
    (root/"benign"/"notes.txt").write_text("no image")
    data = load_data("folder", str(root), size=16)
    assert data.classes == ("benign", "malignant") and len(data) == 8 and data.labels.tolist() == [0]*4 + [1]*4
    assert data.table.id[0] == "benign/0" and data.table.group.nunique() == 8

def test_folder_with_odd_names(tmp_path, cache):
    "Catches class names read as a file pattern: the class [1] would be empty and be left out in silence."
    root = image_folder(tmp_path/"mine", names=("grade [1]", "grade *", "naïve"))
    assert len(load_data("folder", str(root), size=16)) == 12

def test_folder_without_images(tmp_path, cache):
    "Catches a data set of zero images."
    (tmp_path/"mine"/"benign").mkdir(parents=True)
    with refused(cache, "no images", ".jpg", tmp_path/"mine"): load_data("folder", str(tmp_path/"mine"), size=16)

def test_phantoms(cache):
    "Catches phantoms that ignore their seed, differ between two calls, or land in the cache."
    a, b, c = (load_data("phantom", size=16, n=60, phantom_seed=s) for s in (0, 0, 1))
    assert a.fingerprint == b.fingerprint != c.fingerprint and len(a) == 60 and left(cache) == []
    parts = load_data("phantom", size=16, n=400).split()
    assert not set(parts["train"].table.group) & set(parts["test"].table.group)

def test_skin_type(tiny_ham, cache):
    "Catches phantoms without their type, types as ints (NaN would not fit), and a column of NaN where a set knows nothing of it."
    data = load_data("phantom", size=16, n=60)
    assert data.table.skin_type.dtype == float and data.table.skin_type.tolist() == data.table.fitzpatrick.tolist()
    assert "skin_type" not in ham(tiny_ham).table
