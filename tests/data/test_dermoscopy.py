"The ISIC challenges and parts of them in the layouts of their publishers: labels, groups, one mask of several."
import io
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_sets import edit_zip, jpeg, labelled, refused, unzip, write_zip

from medgan.data.dermoscopy import ISIC18_ATTRIBUTES, ISIC18_MASKS
from medgan.data.images import load_data
from medgan.data.splits import group_sides

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

def test_isic_with_groups(tmp_path, cache):
    "Catches a column group of one's own labels that is not used: every image would be a patient, which is a leak."
    labelled(tmp_path/"mine", group=["p1", "p1", "p2", "p2"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data("isic", str(tmp_path/"mine"), size=16).table.group.tolist() == ["isic/p1"]*2 + ["isic/p2"]*2

# ---- tasks 1 and 2 of 2018

def png(pixels):
    "The bytes of a grey PNG."
    Image.fromarray(pixels).save(data := io.BytesIO(), "PNG")
    return data.getvalue()

def boxes_of(i):
    "Six masks of an image of 40x30 px, as published: a box each, and streaks in no image but the first."
    masks = {}
    for k, name in enumerate(ISIC18_MASKS):
        masks[name] = np.zeros((30, 40), np.uint8)
        if name != "streaks" or i == 0: masks[name][2 + k:20 + k, 8 + i:20 + i + k] = 255
    return masks

def isic18(folder, n=4, part="Training"):
    "Images and masks in the publisher's zip files."
    rng, names = np.random.default_rng(5), [f"ISIC_{i:07d}" for i in range(n)]
    folder.mkdir(parents=True, exist_ok=True)
    write_zip(folder/f"ISIC2018_Task1-2_{part}_Input.zip", {f"ISIC2018_Task1-2_{part}_Input/{name}.jpg": jpeg(rng) for name in names})
    write_zip(folder/f"ISIC2018_Task1_{part}_GroundTruth.zip",
              {f"ISIC2018_Task1_{part}_GroundTruth/{name}_segmentation.png": png(boxes_of(i)["lesion"]) for i, name in enumerate(names)})
    write_zip(folder/f"ISIC2018_Task2_{part}_GroundTruth_v3.zip",
              {f"ISIC2018_Task2_{part}_GroundTruth_v3/{name}_attribute_{a}.png": png(boxes_of(i)[a])
               for i, name in enumerate(names) for a in ISIC18_ATTRIBUTES})
    return folder

def coded(folder, n=4):
    "The same with labels, and all masks of an image in one file."
    labelled(folder, ids=[f"ISIC_{i:07d}" for i in range(n)])
    (folder/"masks").mkdir()
    for i in range(n):
        bits = sum((mask > 0)*np.uint8(1 << k) for k, mask in enumerate(boxes_of(i).values()))
        (folder/"masks"/f"ISIC_{i:07d}.png").write_bytes(png(bits))
    return folder

def loaded(folder, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names no lesion")
        return load_data("isic18_task2", str(folder), size=30, **options)

@pytest.mark.parametrize("make", [isic18, coded])
@pytest.mark.parametrize("unzipped", [False, True])
def test_isic18_masks(tmp_path, cache, make, unzipped):
    "Catches the wrong bit, the mask of another attribute or of another image, and masks that are not cut as their images."
    folder = make(tmp_path/"isic18_task2")
    if unzipped: unzip(folder, nested=False)
    for name in ISIC18_MASKS:
        data = loaded(folder, mask=name)
        assert data.table.id.tolist() == [f"ISIC_{i:07d}" for i in range(4)]
        assert np.array_equal(data.masks, [boxes_of(i)[name][:, 5:35] > 0 for i in range(4)])
    assert loaded(folder, mask="").masks is None and loaded(folder).masks.any((1, 2)).all()

def test_isic18_layouts_are_alike(tmp_path, cache):
    "Catches that the coded form shows other masks than the published one."
    one, other = isic18(tmp_path/"a"), coded(tmp_path/"b")
    for name in ISIC18_MASKS: assert np.array_equal(loaded(one, mask=name).masks, loaded(other, mask=name).masks)

def test_isic18_without_labels(tmp_path, cache):
    "Catches a class that nobody told, silence about the groups, and parts of the challenge that are mixed without a word."
    isic18(tmp_path/"set")
    with pytest.warns(UserWarning, match="isic18_task2: .* names no lesion or patient"):
        data = load_data("isic18_task2", str(tmp_path/"set"), size=16)
    assert data.classes == ("lesion",) and data.table.group.nunique() == 4 and set(data.table.official) == {"training"}

def test_isic18_with_labels(tmp_path, cache):
    "Catches lesions and diagnoses of ISIC 2019 that are not used, and an image that gets the diagnosis of another."
    folder = isic18(tmp_path/"set")
    names = [f"ISIC_{i:07d}" for i in (3, 0, 1, 9)]
    pd.DataFrame(dict(image=names, MEL=[0, 1, 0, 1], NV=[1, 0, 1, 0])).to_csv(folder/"ISIC_2019_Training_GroundTruth.csv", index=False)
    pd.DataFrame(dict(image=names, lesion_id=["L3", "L0", "L0", "L9"])).to_csv(folder/"ISIC_2019_Training_Metadata.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 4 images have no dx and are left out, such as ISIC_0000002"): data = loaded(folder)
    assert data.table.id.tolist() == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000003"] and data.table.dx.tolist() == ["mel", "nv", "nv"]
    assert data.table.group.tolist() == ["isic/L0", "isic/L0", "isic/L3"]

@pytest.mark.parametrize("make", [isic18, coded])
def test_isic18_unknown_mask(tmp_path, cache, make):
    "Catches a misspelt attribute that gives another mask, or none."
    folder = make(tmp_path/"isic18_task2")
    with refused(cache, "mask='milia'", *ISIC18_MASKS): loaded(folder, mask="milia")

def test_isic18_missing_masks(tmp_path, cache):
    "Catches images whose masks are not there, taken without one or left out."
    folder = isic18(tmp_path/"set")
    edit_zip(folder/"ISIC2018_Task2_Training_GroundTruth_v3.zip",
             lambda files: files.pop("ISIC2018_Task2_Training_GroundTruth_v3/ISIC_0000001_attribute_globules.png"))
    with refused(cache, "isic18_task2 (masks _attribute_globules): 1 of 4 images are missing", "ISIC_0000001"):
        loaded(folder, mask="globules")
    (folder/"ISIC2018_Task1_Training_GroundTruth.zip").unlink()
    with refused(cache, "isic18_task2 (masks _segmentation): 4 of 4 images are missing", "none was found"): loaded(folder)
    (other := coded(tmp_path/"coded")/"masks"/"ISIC_0000002.png").unlink()
    with refused(cache, "isic18_task2 (masks): 1 of 4", "ISIC_0000002"): loaded(other.parent.parent)
    shutil.make_archive(str(other.parent), "zip", other.parent)
    shutil.rmtree(other.parent)
    with refused(cache, "isic18_task2 (masks): 4 of 4", "none was found"): loaded(other.parent.parent)         # not out of archives
    (folder/"ISIC2018_Task1-2_Training_Input.zip").unlink()
    (folder/"ISIC2018_Task1-2_Training_Input").mkdir()
    with refused(cache, "no images in", folder): loaded(folder)

@pytest.mark.parametrize("content, message", [
    (b"no picture", "cannot identify"), (png(np.zeros((15, 20), np.uint8)), "it has 20x15 px, its image 40x30"),
    (png(np.zeros((30, 40, 3), np.uint8)), "it has mode RGB; masks coded in bits are grey (L)")],
    ids=["broken", "size", "mode"])
def test_isic18_bad_coded_mask(tmp_path, cache, content, message):
    "Catches a broken mask, another image's, and colours read as bits."
    folder = coded(tmp_path/"set")
    (folder/"masks"/"ISIC_0000001.png").write_bytes(content)
    with refused(cache, "isic18_task2: 1 of 4 masks cannot be read", "ISIC_0000001.png", message): loaded(folder)

def test_isic18_empty_masks(tmp_path, cache):
    "Catches masks that are all empty, as where the bits of another coding are read."
    folder = coded(tmp_path/"set")
    for i in range(4): (folder/"masks"/f"ISIC_{i:07d}.png").write_bytes(png(np.full((30, 40), 1, np.uint8)))
    with refused(cache, "all 4 masks are empty at bit 5"): loaded(folder)
    assert loaded(folder, mask="pigment_network").masks.all()

# ---- parts with labels.csv

PARTS_OF = dict(isic20_part="isic", pad_ufes20_part="pad_ufes_20", milk10k_derm="milk10k", milk10k_clinic="milk10k", isic18_task2="isic")

@pytest.mark.parametrize("name", PARTS_OF)
def test_part(tmp_path, cache, name):
    "Catches a class of the wrong column, groups that are not used, and groups that a set of the same family would call otherwise."
    labelled(tmp_path/name, group=["g1", "g1", "g2", "g3"], dx=["NV", "MEL", "unknown", "SEK"])
    options = dict(mask="") if name == "isic18_task2" else {}
    data = load_data(name, str(tmp_path), size=16, **options)
    assert data.classes == ("benign", "malignant") and data.labels.tolist() == [0, 1, 0, 0]
    assert data.table.group.tolist() == [f"{PARTS_OF[name]}/{g}" for g in ("g1", "g1", "g2", "g3")]
    with pytest.warns(UserWarning, match="1 of 4 images have no dx and are left out, such as img2"):
        assert load_data(name, str(tmp_path), size=16, label="dx", **options).table.dx.tolist() == ["nv", "mel", "sek"]
    with refused(tmp_path/"empty", name, "label='diagnosis'", "'benign_malignant', 'dx'"):
        load_data(name, str(tmp_path), size=16, label="diagnosis")

def test_part_without_groups(tmp_path, cache):
    "Catches labels without groups, each image of which would be a patient."
    labelled(tmp_path/"isic20_part").drop(columns="group").to_csv(tmp_path/"isic20_part"/"labels.csv", index=False)
    with refused(cache, "labels.csv: column group is missing"): load_data("isic20_part", str(tmp_path), size=16)

def test_families(tmp_path, cache):
    "Catches a patient of ISIC 2020 who is in the training part of the whole and in the test part of the part."
    labelled(tmp_path/"isic20_part", group=["IP_1", "IP_1", "IP_2", "IP_3"])
    isic(tmp_path/"isic", 2020)
    whole, part = load_data("isic", str(tmp_path), size=16), load_data("isic20_part", str(tmp_path), size=16)
    assert set(part.table.group) == {"isic/IP_1", "isic/IP_2", "isic/IP_3"} and set(whole.table.group.str.partition("/")[0]) == {"isic"}
    assert list(group_sides(part.table.group[:1])) == list(group_sides(["isic/IP_1"]))
