"A user's own folder: every picture is taken once, or its absence is told; who is on it can be said."
import os
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image
from small_sets import image_folder, left, refused

from medgan.data.files import as_numbers, linked, read_table, told_groups, with_id
from medgan.data.images import load_data
from medgan.data.registry import DataError

def picture(path, seed=0, **options):
    "A file with noise."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(path, **options)

def own(root, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names no lesion")
        return load_data("folder", str(root), size=16, **options)

def test_same_names_in_folders_of_patients(tmp_path, cache):
    "Catches five pictures that become one because their files have one name."
    for i in range(5): picture(tmp_path/"set"/"nv"/f"p{i}"/"001.png", i)
    data = own(tmp_path/"set")
    assert list(data.table.id) == [f"nv/p{i}/001" for i in range(5)] and len({x.tobytes() for x in data.images}) == 5
    picture(tmp_path/"set"/"nv"/"p0"/"001.jpg")
    with pytest.raises(DataError, match="001.jpg and .*001.png differ only in the ending"): own(tmp_path/"set")

def test_hidden_files(tmp_path, cache):
    "Catches thumbnails, editors' copies and what Mac OS puts beside each file."
    root = image_folder(tmp_path/"set")
    for name in (".ipynb_checkpoints/0.jpg", "._0.jpg", "__MACOSX/0.jpg", ".thumbs/deep/0.jpg"): picture(root/"benign"/name)
    picture(root/".git"/"0.jpg")
    assert len(own(root)) == 8

def test_left_out(tmp_path, cache):
    "Catches pictures that are dropped without a word: an ending that is not read, a link to nothing."
    root = image_folder(tmp_path/"set")
    (root/"benign"/"phone.HEIC").write_bytes(b"x")
    (root/"malignant"/"annex.png").symlink_to(root/"nowhere.png")
    picture(root/"benign"/"web.webp")
    (root/"benign"/"notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match="2 pictures are left out, such as .*phone.HEIC"): data = own(root)
    assert len(data) == 9

@pytest.mark.parametrize("content, message", [
    (dict(train=("benign", "malignant"), test=("benign", "malignant")), "holds test, train, which are parts and no classes"),
    (dict(benign=("",), empty=()), "the class 'empty' has no image"), ({}, "no images")])
def test_no_classes(tmp_path, cache, content, message):
    "Catches parts taken for classes, and a class that ends empty."
    (tmp_path/"set"/"x").mkdir(parents=True)
    if content: (tmp_path/"set"/"x").rmdir()
    for name, inside in content.items():
        (tmp_path/"set"/name).mkdir()
        for sub in inside: picture(tmp_path/"set"/name/sub/"0.png")
    with refused(cache, message, tmp_path/"set"): own(tmp_path/"set")

def test_groups(tmp_path, cache):
    "Catches patients that cannot be told, and images that a table forgets."
    root = tmp_path/"set"
    for i in range(6): picture(root/"nv"/f"patient{i//2}_{i}.png", i)
    with pytest.warns(UserWarning, match="names no lesion or patient.*groups= takes a CSV or a pattern"):
        load_data("folder", str(root), size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data("folder", str(root), size=16, groups=r"(?P<group>patient\d)_")
    assert list(data.table.group) == [f"folder/patient{i//2}" for i in range(6)]
    table = pd.DataFrame(dict(image=[f"patient{i//2}_{i}.png" for i in range(6)], group=[f" P{i//3}" for i in range(6)]))
    table.to_csv(tmp_path/"who.csv", index=False)
    assert list(own(root, groups=str(tmp_path/"who.csv")).table.group) == [f"folder/P{i//3}" for i in range(6)]
    table[:5].to_csv(tmp_path/"who.csv", index=False)
    with pytest.raises(DataError, match="tells no group of 1 of 6 images, such as nv/patient2_5"): own(root, groups=str(tmp_path/"who.csv"))
    refusals = {"(?P<group>lesion": "is no regular expression", "(?P<group>lesion)": "no group of 6 of 6", "no.csv": "is not there"}
    for wrong, message in refusals.items():
        with pytest.raises(DataError, match=message): own(root, groups=wrong)

def test_one_image_with_two_groups(tmp_path):
    "Catches the first of two patients taken for the one whose picture it is."
    (tmp_path/"who.csv").write_text("id,group\na,P1\na.jpg,p1\nb,P2\nc,P3\nc,P2\n")
    with pytest.raises(DataError, match="who.csv: c has several groups"): told_groups(str(tmp_path/"who.csv"), pd.Series(["a", "b", "c"]))

def test_held_upright(tmp_path, cache):
    "Catches phone photographs that lie on their side."
    sky = np.zeros((20, 20, 3), np.uint8)
    sky[:5] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path/"set"/"nv").mkdir(parents=True)
    Image.fromarray(np.rot90(sky)).save(tmp_path/"set"/"nv"/"a.jpg", exif=exif, quality=95)
    image = own(tmp_path/"set").images[0]
    assert image[:3].min() > 200 and image[6:].max() < 60

def test_what_was_done_is_told(tmp_path, cache):
    "Catches 16 bits and transparency that are converted without a word."
    root = tmp_path/"set"
    picture(root/"nv"/"a.png")
    Image.fromarray(np.full((24, 24), 65535, np.uint16)).save(root/"nv"/"deep.png")
    Image.fromarray(np.zeros((24, 24, 4), np.uint8)).save(root/"nv"/"clear.png")
    with pytest.warns(UserWarning) as caught: data = load_data("folder", str(root), size=16)
    told = [str(w.message) for w in caught]
    for what in ("16 bits a channel", "transparent pixels"): assert any(f"1 of 3 images have {what}" in text for text in told)
    assert data.images[1:].min() == 255                                      # clear, deep

def test_unreadable_files_are_named(tmp_path, cache):
    "Catches errors of libraries that name no file, and decoding of what is far too large."
    root = image_folder(tmp_path/"set", n=1)
    (root/"benign"/"cut.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    Image.new("1", (20000, 20000)).save(root/"benign"/"huge.png")
    Image.fromarray(np.full((9, 9), 300, np.uint16)).save(root/"benign"/"twelve.png")
    why = "twelve.png (it has 16 bits, but its values end at 300"
    with refused(cache, "3 of 5 images cannot be read", "cut.png", "huge.png", why): own(root)

def test_no_room(tmp_path, monkeypatch):
    "Catches a process that the system kills, without a word, because the disk is full in the middle of a page."
    root = image_folder(tmp_path/"set")
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path/"cache"))
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"images.npy needs \d+ MB .*No space left.*MEDGAN_CACHE"): own(root)
    assert left(tmp_path/"cache") == []
    monkeypatch.setenv("MEDGAN_CACHE", "/dev/null/cache")
    with pytest.raises(DataError, match=r"\$MEDGAN_CACHE='/dev/null/cache': /dev/null is a file; name a folder"): own(root)

def test_tables_are_text(tmp_path):
    "Catches 0001 read as 1, None and True that become no text, blanks and a BOM that make another name."
    (tmp_path/"t.csv").write_text("\ufeffimage_name , dx,age\n0001.jpg,None, 50\n 0002 ,True,\n", encoding="utf-8")
    table = with_id(read_table(tmp_path/"t.csv"), "t.csv")
    assert table.id.tolist() == ["0001", "0002"] and table.dx.tolist() == ["None", "True"]
    assert as_numbers(table, ["age"], "t.csv").age.fillna(-1).tolist() == [50, -1]
    with pytest.raises(DataError, match="dx is 'None' in line 2; a number is needed"): as_numbers(table, ["dx"], "t.csv")

@pytest.mark.parametrize("seed", range(5))
def test_linked(seed):
    "Catches a chain of identities that is followed only one step: a plain search through all pairs says the same."
    rng = np.random.default_rng(seed)
    columns = [pd.Series(np.where(rng.random(40) < .4, None, [f"{kind}{i}" for i in rng.integers(0, 30, 40)])) for kind in "PL"]
    group = linked(*columns)
    one = np.arange(40)
    for _ in range(40):
        for column in columns:
            for name in column.dropna().unique(): one[np.isin(one, one[column == name])] = one[column == name].min()
    known = group.notna().to_numpy()
    assert np.array_equal(known, columns[0].notna() | columns[1].notna())
    for i in np.flatnonzero(known):
        assert np.array_equal((group == group[i]).to_numpy(), (one == one[i]) & known)
