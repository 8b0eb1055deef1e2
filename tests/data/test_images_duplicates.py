"One photograph under two names: the same file is of one group from the beginning, what looks alike is told and joined where asked for."
import warnings

import numpy as np
import pytest
from PIL import Image

from medgan.data.images import load_data
from medgan.data.registry import DataError
from medgan.data.splits import PARTS, SAME, group_sides

def picture(seed, size=(160, 120)):
    "Large spots and small ones."
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 256, (3*n, 4*n, 3), dtype=np.uint8) for n in (2, 8)]
    large, small = (Image.fromarray(layer).resize(size, Image.Resampling.BICUBIC) for layer in layers)
    return Image.blend(large, small, .5)

@pytest.fixture
def photographs(tmp_path):
    "A hundred patients in two classes, a photograph each, written as PNG."
    for i in range(100):
        path = tmp_path/"mine"/"ab"[i % 2]/f"p{i:02d}_1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(path)
    return tmp_path/"mine"

def opened(folder, size=32, **options):
    "The set, with patients from the names of the files."
    return load_data("folder", str(folder), size, groups=r"(?P<group>p[c0-9]+)_", **options)

def group_of(data, name): return data.table.group[data.table.id == name].item()

def test_without_duplicates(photographs, cache):
    "Catches a look or a checksum that finds all pictures alike."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = opened(photographs)
    assert data.table.group.nunique() == 100 and (data.table.looks_like == "").all()

def test_same_file(photographs, cache):
    "Catches a file that stands in two classes under two patients, and may be trained on and tested."
    (photographs/"b"/"pc4_1.png").write_bytes((photographs/"a"/"p04_1.png").read_bytes())
    for _ in range(2):
        with pytest.warns(UserWarning, match="2 groups hold the very same files as others; they are 1, such as folder/p04 = folder/pc4"):
            data = opened(photographs)
        assert group_of(data, "a/p04_1") == group_of(data, "b/pc4_1") == "folder/p04 = folder/pc4" and data.table.group.nunique() == 100

@pytest.mark.parametrize("copy", [lambda im: im.resize((100, 75)), lambda im: im.point(lambda v: .85*v), lambda im: im.convert("L")],
                         ids=["smaller", "darker", "grey"])
def test_same_photograph(photographs, cache, copy):
    "Catches a photograph that was saved anew and counts as another patient's, without a word."
    copy(picture(6)).save(photographs/"b"/"pc6_1.jpg", quality=70)
    with pytest.warns(UserWarning, match=r"2 images look like others of other groups \(column looks_like\), such as a/p06_1 and b/pc6_1"):
        data = opened(photographs)
    told = data.table[data.table.looks_like != ""]
    assert told.id.tolist() == ["a/p06_1", "b/pc6_1"] and set(told.looks_like) == {"a/p06_1"}
    assert told.group.tolist() == ["folder/p06", "folder/pc6"]
    n_apart = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)                # a group whose names fall on two sides is in no part
        for seed in range(4):
            apart, joined = (data.split(seed=seed, join_duplicates=join) for join in (False, True))
            for part in PARTS:
                assert set(joined[part].table.id) <= set(apart[part].table.id)
                assert set(joined[part].table.id) == set(opened(photographs, split=part, seed=seed, join_duplicates=True).table.id)
            of_names = group_sides(told.group, seed=seed)
            n_apart += of_names[0] != of_names[1]
            sides = [{part for part in PARTS if name in set(joined[part].table.id)} for name in told.id]
            assert sides[0] == sides[1] and (len(sides[0]) == 1) == (of_names[0] == of_names[1])
    assert n_apart

def test_any_size_finds_the_same(photographs, cache):
    "Catches duplicates that are looked for in what was prepared: at another size a group would be on another side."
    for i in range(0, 40, 4): picture(i).resize((128, 96)).save(photographs/"b"/f"pc{i}_1.jpg", quality=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = [opened(photographs, size).table.looks_like.tolist() for size in (8, 32, 128)]
    assert found[0] == found[1] == found[2] and sum(name != "" for name in found[0]) == 20

def test_blank_pictures_are_no_duplicates(photographs, cache):
    "Catches pictures of one colour that all look alike: a black one would join all patients who have one."
    for i in (60, 61): Image.new("RGB", (60 + i, 60), (10, 0, 0)).save(photographs/"a"/f"pc{i}_1.png")
    assert (opened(photographs).table.looks_like == "").all()

def test_same_slice(tmp_path, cache):
    "Catches one patient's slice under another's name, and empty slices that make all patients one."
    rng = np.random.default_rng(0)
    flair, mask = rng.integers(0, 256, (30, 20, 20), dtype=np.uint8), np.zeros((30, 20, 20), bool)
    mask[::2, 3:6, 4:8] = True
    flair[9], flair[[2, 14, 20]] = flair[5], 0
    np.savez(tmp_path/"s.npz", flair=flair, mask=mask, subject=np.array([f"s{i//2:02d}" for i in range(30)]))
    with pytest.warns(UserWarning, match="slices/s02 = slices/s04"): data = load_data("slices", str(tmp_path), size=20)
    assert data.table.group.nunique() == 14 and [g for g in data.table.group.unique() if SAME in g] == ["slices/s02 = slices/s04"]

def test_drawn_images():
    "Catches a promise that nobody keeps: drawings have no files to compare."
    with pytest.raises(DataError, match="join_duplicates=True: phantom holds no photographs"):
        load_data("phantom", size=32, n=200).split(join_duplicates=True)
