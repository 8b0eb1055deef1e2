"Names as file names: each another on every system, none outside its folder, and those that users choose are refused or kept."
import os
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pathvalidate import is_valid_filename

from medgan.core import names
from medgan.core.checks import ParameterError
from medgan.core.names import check_file_name, safe_name, safe_names

BAD = ["", ".", "..", "../x", "a/../b", "/etc/passwd", "~", "~root", "C:", "C:\\x", "\\\\server\\share", "a/b", "a\\b", "a:b", "a\0b",
       "a\nb", "a\rb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202eb", "a\ud800b", "con", "CON", "nul.txt", "Aux.png", "com1", "LPT9", "COM¹",
       "mel.", "mel ", " mel", ".mel", "...mel", "a?b", "a*b", "a<b>", "a|b", 'a"b', "x"*300, "é"*200, "\U0001f600"*80,
       "__MACOSX", "__macosx"]

def one_file(name):
    "The name that systems see which take upper and lower case for one, and both ways to write an accent (macOS, Windows)."
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())

def check_inside(file):
    "A single step down on either kind of system, visible, and short enough for its path."
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(file)
        assert path.parts == (file,) and not path.is_absolute() and path.parts != ("..",)
    assert is_valid_filename(file, platform="universal") and file.isprintable() and not file.startswith((".", "~")) and file != "__MACOSX"
    assert 0 < len(file.encode()) <= 120 and os.path.dirname(os.path.normpath(os.path.join("folder", file))) == "folder"

any_name = st.one_of(
    st.text(max_size=12), st.text("aAbB./\\: ~-_\u00e9e\u0301\0\n", max_size=6), st.sampled_from(BAD), st.just("x"*300 + "y"))

@settings(deadline=None)
@given(st.lists(any_name, unique=True, max_size=8))
@example(["Mel", "mel", "MEL"])
@example(["a/b", "a:b", "a_b"])
@example(["\u00e9", "e\u0301"])
@example(["x"*300, "x"*300 + "y"])
@example(["straße", "strasse"])
@example([".", "..", "", "_"])
def test_two_names_are_two_files_inside(some):
    "Catches a name that leads out of its folder, one that a system refuses, and two classes whose images land in one folder."
    made = safe_names(some)
    assert list(made) == some and len(set(map(one_file, made.values()))) == len(some)
    for file in made.values(): check_inside(file)

@settings(deadline=None)
@given(any_name, any_name)
def test_a_mark_cannot_be_forged(a, b):
    "Catches a class that is called as another one is filed: both would have one folder in two calls."
    if a != b and one_file(a) != one_file(b): assert safe_name(a) != safe_name(b)
    if safe_name(a) != a: assert safe_name(safe_name(a)) != safe_name(a)

@pytest.mark.parametrize("name", ["mel", "nv", "basal cell", "akiec", "Nävus", "herpes (face)", "stage_2-b", "c++", "黒色腫", "v1"])
def test_ordinary_names_stay(name):
    "Catches a folder that nobody recognises although its class has a harmless name, also beside the harmful ones."
    assert safe_names([*BAD, name])[name] == name == check_file_name("run", name)

def test_names_do_not_depend_on_the_others():
    "Catches a class that moves to another folder because one more class was drawn: only names that are alike matter to each other."
    assert safe_names([*BAD, "mel", "nv"]) == {name: safe_name(name) for name in [*BAD, "mel", "nv"]}
    assert safe_names(["mel", "Mel"])["mel"] != "mel" and safe_names(["mel", "mel"]) == dict(mel="mel")

def test_one_mark_for_two(monkeypatch):
    "Catches two classes in one folder where somebody has found names with one hash."
    monkeypatch.setattr(names, "_mark", lambda name: "0"*12)
    with pytest.raises(ParameterError, match="two have one mark"): safe_names(["a/b", "a:b"])

@pytest.mark.parametrize("name", [n for n in BAD if "macosx" not in n.lower()] + [None, 3, Path("a"), b"a"], ids=lambda n: ascii(n)[:20])
def test_file_names_refused(name):
    "Catches a run or picture that is written elsewhere than it seems, and a TypeError in place of the parameter's name."
    with pytest.raises(ParameterError, match="^run=") as caught: check_file_name("run", name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600

def test_endings():
    "Catches an ending that is asked for in one case only, or not at all."
    assert check_file_name("figure", "a.PNG", (".png",)) == "a.PNG"
    for name in ("a.gif", "png", "a.png.exe"):
        with pytest.raises(ParameterError, match=r"a file name in \.png or \.jpg"): check_file_name("figure", name, (".png", ".jpg"))
