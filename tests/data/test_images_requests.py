"What is asked for in the wrong way is refused by name, with its value and what is allowed, before anything is read."
from pathlib import Path

import numpy as np
import pytest
from small_sets import refused

from medgan.data import images
from medgan.data.images import load_data
from medgan.data.registry import DataError, find_folder

WRONG = dict(
    seed=([None, 1.5, "0", True, float("nan"), float("inf"), [1]], "must be a whole number"),
    classes=(["nv", "", 5, {"nv"}, [None], [1, 2], ["nv", None], np.array(["nv"])], "must be a list of names"),
    split=([None, 1, "Train", [], True], "allowed are 'train', 'val', 'test' or '' for all"),
    size=([None, 0, 7, 1025, 64., "64", True, float("nan"), 10**9, [64]], "a whole number of pixels, 8 to 1024"),
    boxes=([5, None, [], True], "must be the path of a CSV"), groups=([5, None, ["a"], True], "must be text"),
    middle=(["60", None, True, float("nan"), [1]], "must be a number"))

CASES = [(name, value, allowed) for name, (values, allowed) in WRONG.items() for value in values]

@pytest.mark.parametrize("name, value, allowed", CASES, ids=lambda v: repr(v)[:30])
def test_wrong_requests(cache, monkeypatch, name, value, allowed):
    "Catches a traceback of Python, a value that is taken for another, and files that are read before it is refused."
    monkeypatch.setattr(images, "find_folder", lambda *_: pytest.fail("looked for files"))
    with refused(cache, f"{name}={value!r}: {allowed}"): load_data("nifti", **{name: value})

@pytest.mark.parametrize("name", [None, 5, [], "", "HAM10000", "../ham10000"], ids=repr)
def test_wrong_names(cache, name):
    "Catches TypeError: unhashable, and a path taken for a name."
    with refused(cache, f"data={name!r}: no such data set; known are brats, "): load_data(name)

DRAWN = dict(n=("phantom", "1 to 1000000"), phantom_seed=("phantom", "0 to 4294967295"), n_subjects=("tumour_phantom", "1 to 10000"),
             n_slices=("stroke_phantom", "1 to 60"))

@pytest.mark.parametrize("option", DRAWN)
@pytest.mark.parametrize("value", [-1, 2.5, "5", None, True, float("nan"), float("inf"), 10**12, [3], 10**400], ids=lambda v: repr(v)[:12])
def test_wrong_numbers_of_drawings(cache, option, value):
    "Catches a raw error, and a table of 10**12 rows that eats the memory."
    name, bounds = DRAWN[option]
    with refused(cache, f"{name}: {option}={value!r}: must be a whole number"): load_data(name, size=16, **{option: value})
    if isinstance(value, int) and not isinstance(value, bool):
        with pytest.raises(DataError, match=f"must be a whole number from {bounds}"): load_data(name, size=16, **{option: value})

def test_numbers_of_numpy(cache):
    "Catches a whole number of numpy refused."
    assert len(load_data("phantom", size=16, n=np.int64(8), phantom_seed=np.uint8(1), seed=np.int32(3))) == 8

@pytest.mark.parametrize("data_dir, message", [
    (5, "must be the path of a folder"), (None, "must be the path of a folder"), ([], "must be the path of a folder"),
    ("~nobody_at_all/x", "there is no such user's home"), ("x"*5000, "no folder of this name can be"), ("a\0b", "control characters"),
    ("a::b", "must not hold '::'"), ("nowhere", "is no folder. Get the data set from https://doi.org"),
    (__file__, "is no folder")], ids=lambda v: repr(v)[:20])
def test_wrong_folders(cache, data_dir, message):
    "Catches TypeError, RuntimeError and OSError of a path that cannot be, and a path of 5,000 letters in the message."
    with refused(cache, "ham10000: ", message): load_data("ham10000", data_dir)
    with pytest.raises(DataError) as caught: load_data("ham10000", data_dir)
    assert len(str(caught.value)) < 500

def test_errors_name_the_set(tmp_path, cache, monkeypatch):
    "Catches an error of a file that does not say whose it is, and one of Python that a reader did not expect."
    (tmp_path/"labels.csv").write_text("image,dx\na,nv,x\n")
    with refused(cache, "isic: ", tmp_path/"labels.csv", "line 2 has 3 cells"): load_data("isic", str(tmp_path))
    def surprised(*_): raise KeyError("dx")
    monkeypatch.setattr(images, "checked_table", surprised)
    (tmp_path/"labels.csv").write_text("image,dx\na,nv\n")
    (tmp_path/"a.png").write_bytes(b"x")
    message = "isic: cannot be read (KeyError: 'dx'); compare its files with"
    with pytest.warns(UserWarning, match="names no lesion"), refused(cache, message): load_data("isic", str(tmp_path))

def test_home(tmp_path, monkeypatch):
    "Catches a folder called ~."
    (tmp_path/"skin"/"ham10000").mkdir(parents=True)
    (tmp_path/"skin"/"ham10000"/"HAM10000_metadata").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_folder(images.data_spec("ham10000"), Path("~/skin")) == tmp_path/"skin"/"ham10000"
