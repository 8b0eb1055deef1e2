"A data set is found by its name and in its folder, or the message says what is wrong."
import shutil

import pytest
from small_sets import ham, refused

from medgan.core.checks import ParameterError
from medgan.data import registry
from medgan.data.images import load_data
from medgan.data.registry import DataError, data_spec, given_options, known_set, reader_options, register

def test_unknown_set(cache):
    "Catches a KeyError, and a message that hides which names there are."
    with refused(cache, "ham1000'", "ham10000", "isic", "phantom", "folder"): load_data("ham1000")

def test_missing_folder(tmp_path, cache):
    "Catches a message without the place or without where to get the data."
    with refused(cache, "ham10000", tmp_path/"nowhere", "doi.org/10.7910/DVN/DBW86T"): ham(tmp_path/"nowhere")

def test_folder_is_file(tmp_path, cache):
    "Catches a NotADirectoryError."
    (tmp_path/"file").write_text("")
    with refused(cache, tmp_path/"file", "no folder"): ham(tmp_path/"file")

def test_folder_without_the_set(tmp_path, cache):
    "Catches a message that does not say in which folders was looked for what."
    (tmp_path/"x"/"ham10000").mkdir(parents=True)
    with refused(cache, "HAM10000_metadata", tmp_path, tmp_path/"ham10000", tmp_path/"x"/"ham10000", "doi.org"): ham(tmp_path)

@pytest.mark.parametrize("depth", ["", "ham10000", "skin/ham10000"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_data_root(tiny_ham, cache, tmp_path, monkeypatch, depth, by_variable):
    "Catches a root that is not looked through, and a data_dir that $MEDGAN_DATA overrules."
    target = tmp_path/"root"/depth
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(tiny_ham, target)
    monkeypatch.setenv("MEDGAN_DATA", str(tmp_path/"root" if by_variable else tmp_path/"nowhere"))
    assert len(load_data("ham10000", "" if by_variable else str(tmp_path/"root"), size=16)) == 42

# ---- options of readers

def test_known_set():
    "Catches a check of a parameter that changes the name, or lets a misspelt one pass."
    assert known_set("soop") == "soop"
    with pytest.raises(DataError, match="data='sop': no such data set"): known_set("sop")

def test_reader_options():
    "Catches the folder, or what a set fixes itself, taken for an option; a drawn set whose first option is taken for its folder."
    assert reader_options(data_spec("ham10000")) == {}
    assert reader_options(data_spec("lgg")) == dict(middle=60, frame=None, groups="")
    assert reader_options(data_spec("phantom")) == dict(n=3000, phantom_seed=0)
    assert list(reader_options(data_spec("stroke_phantom"))) == ["n_subjects", "n_slices", "phantom_seed"]

@pytest.mark.parametrize("option, message", [
    (dict(middle=60), "middle=60 is no option of this set; it has none"), (dict(n=3), "n=3 is no option"),
    (dict(frame=(208, 160)), "frame=(208, 160) is for brain slices and volumes; other images are squares")], ids=str)
def test_options_of_others(tiny_ham, cache, option, message):
    "Catches an option that is ignored in silence, and Python's own TypeError."
    with refused(cache, "ham10000", message): ham(tiny_ham, **option)

def test_options_that_ask_for_nothing(tiny_ham, cache):
    "Catches frame=None, which a notebook hands to every set, refused for photographs."
    assert ham(tiny_ham, frame=None).fingerprint == ham(tiny_ham).fingerprint

def test_options_of_any_name():
    "Catches a reader with **options whose options are refused."
    register("free")(lambda folder, **options: None)
    try: assert given_options(data_spec("free"), dict(a=1, b=None)) == dict(a=1, b=None)
    finally: del registry._SPECS["free"]

@pytest.mark.parametrize("name", ["../outside", "a/b", "con", "a:b", ".hidden", ""])
def test_names_of_sets(name, monkeypatch):
    "Catches a set whose prepared images are written outside the cache, or on Windows not at all."
    monkeypatch.setattr(registry, "_SPECS", {})
    with pytest.raises(ParameterError, match="^name=.*must be a file name"): register(name)
