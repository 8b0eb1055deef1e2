"A folder of images alone: flat, by class or with its table, and every file in it is an image of the set."
import pytest

from medgan.data.files import IMAGE_TABLE, folder_images
from medgan.data.registry import DataError

def build(root, *files, table=""):
    "Empty files, and a table where there is one."
    for file in files:
        (root/file).parent.mkdir(parents=True, exist_ok=True)
        (root/file).write_bytes(b"")
    if table: (root/IMAGE_TABLE).write_text(table, encoding="utf-8")
    return root

def test_three_kinds(tmp_path):
    "Catches a class that is taken from the wrong place, files in another order than their paths, and hidden things that count."
    hidden = (".DS_Store", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png")
    flat = build(tmp_path/"flat", "2.png", "10.JPG", *hidden)
    assert folder_images(flat, "x") == {"10.JPG": None, "2.png": None} and list(folder_images(flat, "x")) == ["10.JPG", "2.png"]
    by_class = build(tmp_path/"by_class", "b/1.png", "a/2.png", "a/._2.png", "a/.ipynb_checkpoints/2.png", *hidden)
    assert folder_images(by_class, "x") == {"a/2.png": "a", "b/1.png": "b"}
    listed = build(tmp_path/"listed", "b/1.png", "a/2.png", *hidden, table="file,dx\nb/1.png,B/b\na/2.png, None \n")
    assert folder_images(listed, "x") == {"a/2.png": " None ", "b/1.png": "B/b"}
    assert folder_images(build(tmp_path/"parts", "test/1.png", table="file,dx\ntest/1.png,test\n"), "x") == {"test/1.png": "test"}
    assert folder_images(build(tmp_path/"flat_listed", "1.png", table="file,dx\n1.png,nv\n"), "x") == {"1.png": "nv"}

@pytest.mark.parametrize("files, message", [
    (["a/1.png", "2.png"], "a is no image file"), (["a/1.png", "notes.txt"], "a is no image file"),
    (["a/1.png", "a/deep/2.png"], "deep is no image file"), (["a/1.png", "b/notes.txt"], "notes.txt is no image file"),
    (["a/1.png", "b/.hidden"], "no images in .*b"), ([".hidden"], "no images in"),
    (["Train/1.png", "test/1.png"], "holds Train, test, which are parts and no classes"), (["test/a/1.png"], "holds test, which are parts"),
    (["a/\udcff.png"], "a path must not hold '::'"), (["a/x::y.png"], "a path must not hold '::'")], ids=lambda x: ascii(x)[:24])
def test_what_does_not_belong(tmp_path, files, message):
    "Catches a class that is empty, and images beside or below the classes' folders that are left out without a word."
    with pytest.raises(DataError, match=message) as caught: folder_images(build(tmp_path/"made", *files), "x")
    assert str(caught.value).startswith("x: ") and "\n" not in str(caught.value)

BOTH = "file,dx\na/1.png,nv\na/2.png,nv\n"

@pytest.mark.parametrize("table, message", [
    ("file,dx\na/1.png,nv\n", r"a/2.png is not in images.csv \(1 such files"), (BOTH + "a/3.png,nv\n", "a/3.png is not there"),
    (BOTH + "a/1.png,mel\n", "lists a/1.png twice"), (BOTH + "../a/1.png,nv\n", "../a/1.png is not there"),
    ("file\na/1.png\n", "column dx is missing"), ("\n", "no table of text"), ('file,dx\n"a/1.png,nv\n', "no table of text")])
def test_table_that_does_not_fit(tmp_path, table, message):
    "Catches a folder that somebody changed, or whose writing was cut short, and that passes for whole; a path that leads out of it."
    folder = build(tmp_path/"made", "a/1.png", "a/2.png", table=table)
    with pytest.raises(DataError, match=message): folder_images(folder, "x")
