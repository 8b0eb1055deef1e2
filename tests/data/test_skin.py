"Dermoscopic sets in every layout of their publishers: labels, groups, masks."
import io
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_sets import HAM_CLASSES, ham, image_folder, jpeg, left, refused, unzip, write_zip

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

def isic(folder, year, lesions=True):
    "12 images of 6 lesions (or patients) in the form of a challenge's year."
    rng, names = np.random.default_rng(1), [f"ISIC_{i:07d}" for i in range(12)]
    dx = ["MEL" if i < 6 else "NV" for i in range(12)]
    groups = [f"IP_{i//2:07d}" for i in range(12)]
    folder.mkdir(parents=True)
    one_hot = dict(MEL=[float(d == "MEL") for d in dx], NV=[float(d == "NV") for d in dx], BCC=[0.]*12)
    stem = f"ISIC{'_' if year != 2018 else ''}{year}_{'Task3_' if year == 2018 else ''}Training"
    write_zip(folder/f"{stem}_Input.zip", {f"{stem}_Input/{n}.jpg": jpeg(rng) for n in names} | {f"{stem}_Input/LICENSE.txt": b"CC"})
    if year == 2020:
        pd.DataFrame(dict(image_name=names, patient_id=groups, sex="male", age_approx=45., diagnosis="unknown",
                          benign_malignant=["malignant" if d == "MEL" else "benign" for d in dx], target=[int(d == "MEL") for d in dx])
                     ).to_csv(folder/f"{stem}_GroundTruth.csv", index=False)
        return
    pd.DataFrame(dict(image=names, **one_hot)).to_csv(folder/f"{stem}_GroundTruth.csv", index=False)
    if lesions and year == 2018:
        groupings = pd.DataFrame(dict(image=names, lesion_id=groups, diagnosis_confirm_type="histopathology"))
        groupings.to_csv(folder/f"{stem}_LesionGroupings.csv", index=False)
    if lesions and year == 2019:
        metadata = pd.DataFrame(dict(image=names, age_approx=55., anatom_site_general="torso", lesion_id=groups, sex="male"))
        metadata.to_csv(folder/f"{stem}_Metadata.csv", index=False)

@pytest.mark.parametrize("year, classes", [(2018, ("mel", "nv")), (2019, ("mel", "nv")), (2020, ("benign", "malignant"))])
def test_isic(tmp_path, cache, year, classes):
    "Catches labels of the wrong column, and a file of lesions (2018, 2019) or a column of patients (2020) that is not used: a leak."
    isic(tmp_path/"isic", year)
    with warnings.catch_warnings():
        warnings.simplefilter("error")                                       # a set that names its lesions gives no warning
        data = load_data("isic", str(tmp_path/"isic"), size=16)
    assert len(data) == 12 and data.classes == classes and data.table.group.nunique() == 6
    first = data.table.set_index("id").loc["ISIC_0000000"]
    assert first.dx == ("malignant" if year == 2020 else "mel") and first.group == "isic/IP_0000000"
    assert data.table.group[data.table.id == "ISIC_0000001"].item() == "isic/IP_0000000"

def test_isic_without_lesions(tmp_path, cache):
    "Catches silence where every image becomes a group of its own."
    isic(tmp_path/"isic", 2019, lesions=False)
    with pytest.warns(UserWarning, match="GroundTruth.csv names no lesion or patient"):
        data = load_data("isic", str(tmp_path/"isic"), size=16)
    assert data.table.group.nunique() == 12

def test_isic_bad(tmp_path, cache):
    "Catches a row without a diagnosis or with two (idxmax gives the first column), missing images and a CSV without labels."
    folder = tmp_path/"isic"
    isic(folder, 2019)
    path = folder/"ISIC_2019_Training_GroundTruth.csv"
    good = pd.read_csv(path)
    for column, value in (("NV", 1.), ("MEL", 0.)):
        good.assign(**{column: good[column].where(good.image != "ISIC_0000003", value)}).to_csv(path, index=False)
        with refused(cache, path, "ISIC_0000003", "one is allowed"): load_data("isic", str(folder), size=16)
    pd.concat([good, good.tail(1).assign(image="ISIC_0000099")]).to_csv(path, index=False)
    with refused(cache, "1 of 13 images are missing", "ISIC_0000099"): load_data("isic", str(folder), size=16)
    good[["image"]].to_csv(path, index=False)
    with refused(cache, "no label file", folder, path.name): load_data("isic", str(folder), size=16)

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
