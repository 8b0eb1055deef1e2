"Clinical photographs with skin types: Fitzpatrick17k, PAD-UFES-20, DDI, SCIN."
import hashlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_sets import refused

from medgan.data.images import load_data
from medgan.data.prepare import clear_cache

def photos(folder, names, ending="jpg", first=0):
    "A drawn phantom for each name, from the first on."
    folder.mkdir(parents=True, exist_ok=True)
    drawn = load_data("phantom", size=40, n=max(7, first + len(names)))
    for name, pixels in zip(names, drawn.images[first:]): Image.fromarray(pixels).save(folder/f"{name}.{ending}")

def open_set(name, folder, **options): return load_data(name, str(folder), size=16, **options)

HASHES = [hashlib.md5(str(i).encode()).hexdigest() for i in range(8)]

def fitzpatrick17k(folder, there=HASHES):
    pd.DataFrame(dict(md5hash=HASHES, fitzpatrick_scale=[1, 2, 3, 4, 5, 6, -1, 2], fitzpatrick_centaur=[1, 1, -1, 4, 5, 6, 2, 2],
                      label=["psoriasis", "melanoma"]*4, nine_partition_label=["inflammatory", "malignant melanoma"]*4,
                      three_partition_label=["non-neoplastic", "malignant"]*4, qc=["1 Diagnostic"] + [None]*7,
                      url="https://www.dermaamin.com/x.jpg",
                      url_alphanum="x.jpg")).to_csv(folder/"fitzpatrick17k.csv", index=False)
    photos(folder/"images", there)

def test_fitzpatrick17k(tmp_path, cache):
    "Catches -1 as a skin type, the wrong column of labels, a label text lost under the label number, and images mixed up with rows."
    fitzpatrick17k(tmp_path)
    with pytest.warns(UserWarning, match="fitzpatrick17k.csv names no lesion or patient") as caught:
        data = open_set("fitzpatrick17k", tmp_path)
    assert len(caught) == 1 and Path(caught[0].filename) == Path(__file__)
    table = data.table.set_index("id").loc[HASHES]
    assert data.classes == ("melanoma", "psoriasis") and list(table.label) == [1, 0]*4
    assert list(table.condition) == list(table.dx) == ["psoriasis", "melanoma"]*4
    assert np.array_equal(table.skin_type, [1, 2, 3, 4, 5, 6, np.nan, 2], equal_nan=True) and table.group.nunique() == 8
    small = lambda name: Image.open(tmp_path/"images"/f"{name}.jpg").resize((16, 16), Image.Resampling.BICUBIC)
    plain = {name: np.asarray(small(name), int) for name in HASHES}
    for name, image in zip(data.table.id, data.images):
        assert np.abs(image - plain[name]).mean() < 6 == min(6, *(np.abs(image - plain[n]).mean() for n in HASHES if n != name))
    with pytest.warns(UserWarning):
        assert open_set("fitzpatrick17k", tmp_path, label="nine_partition_label").classes == ("inflammatory", "malignant melanoma")
        other = open_set("fitzpatrick17k", tmp_path, skin_type="fitzpatrick_centaur").table.set_index("id").skin_type[HASHES]
        assert np.array_equal(other, [1, 1, np.nan, 4, 5, 6, 2, 2], equal_nan=True)

def test_fitzpatrick17k_in_part(tmp_path, cache):
    "Catches a set that nobody can load because three links are dead, and images left out in silence."
    fitzpatrick17k(tmp_path, there=HASHES[3:])
    with pytest.warns(UserWarning) as caught: assert sorted(open_set("fitzpatrick17k", tmp_path).table.id) == sorted(HASHES[3:])
    assert f"3 of 8 images are not in {tmp_path} (the first: {HASHES[0]}); they are left out" in str(caught[1].message)
    assert {Path(w.filename) for w in caught} == {Path(__file__)}
    clear_cache("fitzpatrick17k")
    shutil.rmtree(tmp_path/"images")
    with pytest.warns(UserWarning), refused(cache, "8 of 8 images are missing", tmp_path, "github.com/mattgroh"):
        open_set("fitzpatrick17k", tmp_path)
    with refused(cache, tmp_path/"fitzpatrick17k.csv", "column nine is missing", "nine_partition_label"):
        open_set("fitzpatrick17k", tmp_path, label="nine")
    table = pd.read_csv(tmp_path/"fitzpatrick17k.csv")
    photos(tmp_path/"images", HASHES)
    table.assign(fitzpatrick_scale=[7] + [1]*7).to_csv(tmp_path/"fitzpatrick17k.csv", index=False)
    with pytest.warns(UserWarning), refused(cache, "skin_type is 7", HASHES[0], "1 to 6"): open_set("fitzpatrick17k", tmp_path)

def pad_ufes(folder):
    patients = ["PAT_8", "PAT_8", "PAT_9", "PAT_10", "PAT_11", "PAT_11"]
    names = [f"{p}_{i + 15}_{i*7}" for i, p in enumerate(patients)]
    folder.mkdir(exist_ok=True)
    pd.DataFrame(dict(patient_id=patients, lesion_id=range(15, 21), smoke=None, age=range(50, 56), fitspatrick=[2., None, 3., 1., None, 6.],
                      region="FACE",
                      diagnostic=["BCC", "ACK", "MEL", "NEV", "SCC", "SEK"], img_id=[f"{n}.png" for n in names], biopsed=True)
                 ).to_csv(folder/"metadata.csv", index=False)
    for part in range(3): photos(folder/"images"/f"imgs_part_{part + 1}"/f"imgs_part_{part + 1}", names[2*part:2*part + 2], "png", 2*part)
    return names

@pytest.mark.parametrize("zipped", [False, True])
def test_pad_ufes_20(tmp_path, cache, zipped):
    "Catches an empty skin type that is 0, groups by lesion (a leak of patients), and zip files below images/ that are not seen."
    names = pad_ufes(tmp_path)
    if zipped:
        for place in (tmp_path/"images").iterdir():
            shutil.make_archive(str(place), "zip", place)
            shutil.rmtree(place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_set("pad_ufes_20", tmp_path)
    table = data.table.set_index("id").loc[names]
    assert data.classes == ("ack", "bcc", "mel", "nev", "scc", "sek") and list(table.dx) == ["bcc", "ack", "mel", "nev", "scc", "sek"]
    assert list(table.group) == [f"pad_ufes_20/PAT_{i}" for i in (8, 8, 9, 10, 11, 11)] and list(table.age) == list(range(50, 56))
    assert np.array_equal(table.skin_type, [2, np.nan, 3, 1, np.nan, 6], equal_nan=True)

def test_pad_ufes_20_bad(tmp_path, cache):
    "Catches a part of the download that is not there, and a metadata.csv of another set."
    names = pad_ufes(tmp_path)
    shutil.rmtree(tmp_path/"images"/"imgs_part_2")
    with refused(cache, "2 of 6 images are missing", names[2], "zr7vgbcyr2"): open_set("pad_ufes_20", tmp_path)
    pd.read_csv(tmp_path/"metadata.csv").drop(columns="fitspatrick").to_csv(tmp_path/"metadata.csv", index=False)
    with refused(cache, tmp_path/"metadata.csv", "column fitspatrick is missing"): open_set("pad_ufes_20", tmp_path)

def ddi(folder):
    names = [f"{i:06d}" for i in range(1, 7)]
    photos(folder/"images", names, "png")
    table = dict(DDI_ID=range(1, 7), DDI_file=[f"{n}.png" for n in names], skin_tone=[56, 12, 34, 34, 12, 56],
                 malignant=[True, True] + [False]*4,
                 disease=["melanoma", "basal-cell-carcinoma", "lipoma", "lipoma", "acne-cystic", "lipoma"])
    pd.DataFrame(table).to_csv(folder/"ddi_metadata.csv")

def test_ddi(tmp_path, cache):
    "Catches 56 as a skin type, a pair of types that becomes one of them unasked, lighter taken for darker, and True as a class name."
    ddi(tmp_path)
    with pytest.warns(UserWarning, match="ddi_metadata.csv names no lesion or patient"): data = open_set("ddi", tmp_path)
    assert data.classes == ("benign", "malignant") and data.labels.tolist() == [1, 1, 0, 0, 0, 0] and data.table.group.nunique() == 6
    assert data.table.id.tolist() == [f"{i:06d}" for i in range(1, 7)]
    assert data.table.skin_type.isna().all() and data.table.skin_tone.tolist() == [56, 12, 34, 34, 12, 56]
    with pytest.warns(UserWarning):
        for which, types in (("lighter", [5, 1, 3, 3, 1, 5]), ("darker", [6, 2, 4, 4, 2, 6])):
            assert open_set("ddi", tmp_path, skin_type=which).table.skin_type.tolist() == types
        assert open_set("ddi", tmp_path, label="disease").classes == ("acne-cystic", "basal-cell-carcinoma", "lipoma", "melanoma")

def test_ddi_bad(tmp_path, cache):
    "Catches a choice that does not exist, a tone that no pair stands for, and a missing image."
    ddi(tmp_path)
    with refused(cache, "skin_type='middle'", "'unknown', 'lighter', 'darker'"): open_set("ddi", tmp_path, skin_type="middle")
    (tmp_path/"images"/"000003.png").unlink()
    with pytest.warns(UserWarning), refused(cache, "1 of 6 images are missing", "000003", "ddi-dataset.github.io"):
        open_set("ddi", tmp_path)
    pd.read_csv(tmp_path/"ddi_metadata.csv").assign(skin_tone=78).to_csv(tmp_path/"ddi_metadata.csv")
    with refused(cache, "skin_tone is 78 (000001.png); allowed are 12, 34, 56"): open_set("ddi", tmp_path)

WEIGHTS = ["{'Eczema': 0.4, 'Tinea': 0.6}", "{'Eczema': 1.0}", "{}", None, "{\"Grover's disease\": 0.5, 'Acne': 0.5}"]

def scin(folder, prefix=""):
    "Five cases, seven images: one case without a weight, one without a label; case 3 and 1 share an image, and one file is not there."
    path = lambda name: f"dataset/images/{name}.png" if name else None
    (folder/"images").mkdir(parents=True)
    pd.DataFrame(dict(case_id=[-1, 2, 3, 4, 5], source="SCIN", fitzpatrick_skin_type=["FST1", "NONE_SELECTED", "FST3", None, "FST6"],
                      image_1_path=map(path, ["-11", "21", "31", "41", "51"]), image_2_path=map(path, ["-12", None, "-11", None, "404"]),
                      image_3_path=map(path, [None, "22", None, None, None]))).to_csv(folder/f"{prefix}scin_cases.csv", index=False)
    labels = pd.DataFrame({"case_id": [-1, 2, 3, 4, 5], "weighted_skin_condition_label": WEIGHTS,
                           **{f"dermatologist_fitzpatrick_skin_type_label_{i + 1}": types for i, types in enumerate((
                               ["FST2", None, "FST3", "FST3", "FST4"], ["FST5", None, None, None, "FST5"],
                               ["FST3", None, None, None, None]))}})
    labels.iloc[::-1].to_csv(folder/f"{prefix}scin_labels.csv", index=False)
    photos(folder/"images", ["-11", "-12", "21", "22", "31", "41", "51"], "png")

@pytest.mark.parametrize("prefix", ["", "dataset_"])
def test_scin(tmp_path, cache, prefix):
    "Catches labels joined by row, the first condition instead of the heaviest, FST3 as NaN, the mean of types, cases that share an image."
    scin(tmp_path, prefix)
    with pytest.warns(UserWarning) as caught: data = open_set("scin", tmp_path)
    messages = " ".join(str(w.message) for w in caught)
    assert "scin: 3 of 9 images have no condition and are left out; 0 are listed again" in messages
    assert "1 of 6 images are not in" in messages and "404" in messages
    assert {Path(w.filename) for w in caught} == {Path(__file__)}
    table = data.table.set_index("id")
    assert set(table.index) == {"-11", "-12", "21", "22", "51"}
    assert table.dx.to_dict() == {"-11": "Tinea", "-12": "Tinea", "21": "Eczema", "22": "Eczema", "51": "Grover's disease"}
    assert table.group["-11"] == table.group["-12"] and table.group.nunique() == 3
    assert table.skin_type[["-11", "51"]].tolist() == [3, 4] and table.skin_type[["21", "22"]].isna().all()
    with pytest.warns(UserWarning): own = open_set("scin", tmp_path, skin_type="self").table.set_index("id").skin_type
    assert own[["-11", "-12", "51"]].tolist() == [1, 1, 6] and np.isnan(own["21"])

def test_scin_shared_images(tmp_path, cache):
    "Catches an image that is listed twice and counts twice (or stops everything), and the other images of its two cases on two sides."
    scin(tmp_path)
    labels = pd.read_csv(tmp_path/"scin_labels.csv", dtype=str)
    labels.assign(weighted_skin_condition_label="{'Eczema': 1.0}").to_csv(tmp_path/"scin_labels.csv", index=False)
    with pytest.warns(UserWarning) as caught: data = open_set("scin", tmp_path)
    assert "0 of 9 images have no condition and are left out; 1 are listed again" in str(caught[0].message)
    group = data.table.set_index("id").group
    assert len(data) == 7 and group["-11"] == group["-12"] == group["31"] and group.nunique() == 4

def test_scin_bad(tmp_path, cache):
    "Catches pandas' own errors for a file or a column that is not there, and text that would be run instead of read."
    scin(tmp_path)
    path = tmp_path/"scin_labels.csv"
    labels = pd.read_csv(path, dtype=str)
    with refused(cache, "skin_type='monk'", "'dermatologist', 'self'"): open_set("scin", tmp_path, skin_type="monk")
    for text in ("Eczema", "['Eczema']", "__import__('os').getcwd()", "{'Eczema'"):
        labels.assign(weighted_skin_condition_label=text).to_csv(path, index=False)
        with refused(cache, text, "no dict"): open_set("scin", tmp_path)
    labels.assign(weighted_skin_condition_label="{}").to_csv(path, index=False)
    with refused(cache, "no case in", tmp_path): open_set("scin", tmp_path)
    labels.drop(columns="weighted_skin_condition_label").to_csv(path, index=False)
    with refused(cache, "scin_labels.csv", "column weighted_skin_condition_label is missing"): open_set("scin", tmp_path)
    path.unlink()
    with refused(cache, path, "is not there"): open_set("scin", tmp_path)
