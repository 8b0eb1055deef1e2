"What a folder may hold beside pictures: links, pipes, names that no table can write, tables and arrays out of order."
import io
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import edit_zip, ham, image_folder, refused, write_zip

from medgan.data import files
from medgan.data.files import array_of, files_below, read_table
from medgan.data.images import load_data
from medgan.data.registry import DataError

def own(root, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names no lesion")
        return load_data("folder", str(root), size=16, **options)

def png(seed=0):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(data := io.BytesIO(), "PNG")
    return data.getvalue()

def test_linked_folders(tmp_path, cache):
    "Catches a patient's folder that is a link, and whose pictures are dropped without a word."
    root = image_folder(tmp_path/"set")
    (tmp_path/"p9").mkdir()
    (tmp_path/"p9"/"9.png").write_bytes(png())
    (root/"benign"/"p9").symlink_to(tmp_path/"p9")
    assert "benign/p9/9" in set(own(root).table.id)

def test_links_that_lead_back(tmp_path, cache):
    "Catches a search that never ends, or that finds each picture again and again."
    root = image_folder(tmp_path/"set")
    (root/"benign"/"itself").symlink_to(root/"benign")
    (root/"benign"/"root").symlink_to(root)
    (tmp_path/"other").mkdir()
    (tmp_path/"other"/"back").symlink_to(root/"benign")
    (root/"benign"/"other").symlink_to(tmp_path/"other")
    (root/"benign"/"self.jpg").symlink_to(root/"benign"/"self.jpg")
    with pytest.warns(UserWarning, match="1 pictures are left out, such as .*self.jpg .a link to a file that is not there"):
        assert len(own(root)) == 8

@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipe(tmp_path, cache):
    "Catches a reader that waits for ever at a pipe."
    root = image_folder(tmp_path/"set")
    os.mkfifo(root/"benign"/"pipe.png")
    with pytest.warns(UserWarning, match="1 pictures are left out, such as .*pipe.png .a device or a pipe, and no file"):
        assert len(own(root)) == 8

def test_folder_that_may_not_be_read(tmp_path, cache, monkeypatch):
    "Catches a folder of pictures that is skipped because it belongs to somebody else."
    root, look = image_folder(tmp_path/"set"), Path.iterdir
    def locked(path):
        if path.name == "malignant": raise PermissionError(13, "Permission denied")
        return look(path)
    monkeypatch.setattr(Path, "iterdir", locked)
    with refused(cache, "folder: ", root/"malignant", "cannot be read (Permission denied)"): own(root)

@pytest.mark.parametrize("name", ["a::b", "a\nb", "a\x1bb", "a\udcffb"], ids=ascii)
@pytest.mark.parametrize("where", ["file", "class", "root"])
def test_paths_that_no_table_can_name(tmp_path, cache, name, where):
    "Catches UnicodeEncodeError, a path cut at ::, and a message of two lines."
    root = tmp_path/(name if where == "root" else "set")
    try:
        image_folder(root, names=(name if where == "class" else "benign",))
        if where == "file": (root/"benign"/f"{name}.png").write_bytes(png())
    except OSError: pytest.skip("this file system does not take such names")
    with refused(cache, "folder: ", ascii(name)[1:-1], "a path must not hold '::'", "rename it"): own(root)

def test_names_that_are_fine(tmp_path, cache):
    "Catches letters of other scripts, one colon, and the narrow blank of Mac OS's screenshots refused."
    root = image_folder(tmp_path/"set", names=("nævus", "黑色素瘤"), n=1)
    for name in ("10:30", "bild\u202fAM", "a..b", "[1]*"): (root/"nævus"/f"{name}.png").write_bytes(png())
    assert len(own(root)) == 6

def test_backslashes_in_a_zip(tiny_ham, cache):
    "Catches images that Windows packed, none of which is found."
    before = ham(tiny_ham).fingerprint
    for path in tiny_ham.glob("*images*.zip"):
        edit_zip(path, lambda files: [files.update({f"images\\{name}": files.pop(name)}) for name in list(files)])
    assert ham(tiny_ham).fingerprint == before

def test_archive_in_capitals(tiny_ham, cache):
    "Catches an archive that Windows named in capitals, and that is not seen."
    before = ham(tiny_ham).fingerprint
    for path in tiny_ham.glob("*.zip"): path.rename(path.with_suffix(".ZIP"))
    assert ham(tiny_ham).fingerprint == before

def test_one_name_in_two_folders_of_a_published_set(tmp_path):
    "Catches one of two pictures taken by chance because both have as many bytes, as all BMP files of one size have."
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        (tmp_path/"images"/name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path/"images"/name/"001.bmp")
    with pytest.raises(DataError, match="the image 001 lies there twice and differs"): files.image_files(tmp_path, "*")
    (tmp_path/"images"/"b"/"001.bmp").write_bytes((tmp_path/"images"/"a"/"001.bmp").read_bytes())
    assert list(files.image_files(tmp_path, "*")) == ["001"]

def test_one_member_twice(tmp_path):
    "Catches a zip file that holds two pictures under one name, of which zipfile gives the last."
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(2): archive.writestr("x.png", png(i))
    with pytest.raises(DataError, match="a.zip holds x.png twice"): files.image_files(tmp_path, "*.zip")

def test_whose_line_is_shown(tiny_ham, tmp_path, cache):
    "Catches a warning that points into medgan instead of at the line that opens the set."
    (tiny_ham/"HAM10000_images").mkdir()
    (tiny_ham/"HAM10000_images"/"x.heic").write_bytes(b"x")
    root = image_folder(tmp_path/"set")
    (root/"benign"/"x.heic").write_bytes(b"x")
    for name, folder in (("ham10000", tiny_ham), ("folder", root)):
        with pytest.warns(UserWarning, match="left out") as told: load_data(name, str(folder), size=16)
        assert {Path(w.filename) for w in told if "left out" in str(w.message)} == {Path(__file__)}

def test_pictures_in_no_class(tmp_path, cache):
    "Catches pictures beside the classes' folders, and archives inside of them, that are dropped without a word."
    root = image_folder(tmp_path/"set")
    (root/"loose.PNG").write_bytes(png())
    (root/"benign"/"more.zip").write_bytes(b"x")
    with pytest.warns(UserWarning, match="2 pictures are left out, such as .*loose.PNG .it lies in no class's folder"):
        assert len(own(root)) == 8

@pytest.mark.parametrize("other", ["Benign", "benign ", "BENIGN"])
def test_classes_that_look_alike(tmp_path, cache, other):
    "Catches one class that becomes two because a folder is written in capitals, or ends in a blank."
    root = image_folder(tmp_path/"set")
    try: (root/other).mkdir()
    except FileExistsError: pytest.skip("this file system does not tell them apart")
    (root/other/"x.png").write_bytes(png())
    with refused(cache, "folder: the classes ", "'benign'", repr(other), "differ only in blanks or capitals; write them alike"): own(root)

def test_files_below_is_sorted(tmp_path):
    "Catches an order that depends on the disk."
    for name in ("b/1", "a/2", "a/1", "c", ".git/x", "__MACOSX/y"):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text("")
    assert [p.relative_to(tmp_path).as_posix() for p in files_below(tmp_path)] == ["a/1", "a/2", "b/1", "c"]

# ---- tables

TABLES_BAD = dict(
    more_cells=("id,dx\na,nv\nb,mel,x\n", "line 3 has 3 cells, the header 2; put text that holds a comma in quotes"),
    more_in_each=("id,dx\na,nv,1\nb,mel,2\n", "line 2 has 3 cells, the header 2"),
    fewer_cells=("id,dx,age\na,nv,50\nb,mel", "line 3 has 2 cells, the header 3"),
    after_a_blank_line=("id,dx\n\na,nv,x\n", "line 3 has 3 cells"),
    twice=("id,dx, dx\na,nv,mel\n", "the column dx stands there 2 times; keep one"),
    open_quote=('id,dx\na,"nv\nb,mel\n', "is no table (unexpected end of data in line 3)"),
    zero_bytes=("id,dx\na,n\0v\n", "holds zero bytes"),
    long_cell=("id,dx\na," + "x"*20_000, "a cell in line 2 has over 10,000 characters"),
    longer_cell=("id,dx\na," + "x"*2_000_000, "field larger than field limit (131072) in line 2"),
    utf_16=("id,dx\na,nv\n".encode("utf-16"), "is no text in UTF-8"), latin=("id,dx\na,nævus\n".encode("latin-1"), "is no text in UTF-8"),
    empty=("", "has no rows"), blank=("\n\n", "has no rows"), header=("id,dx\n", "has no rows"))

@pytest.mark.parametrize("content, message", TABLES_BAD.values(), ids=TABLES_BAD)
def test_tables_bad(tmp_path, content, message):
    "Catches cells that move into other columns or are lost, a half file taken for a whole one, and pandas' errors without the file."
    (tmp_path/"t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught: read_table(tmp_path/"t.csv")
    assert message in str(caught.value) and str(tmp_path/"t.csv") in str(caught.value) and "\n" not in str(caught.value)

@pytest.mark.parametrize("content", [
    "id,dx,age\na,nv,50\nb,,\n", "id;dx;age\na;nv;50\nb;;\n", "id\tdx\tage\na\tnv\t50\nb\t\t\n", "id,dx,age\r\na,nv,50\r\nb,,\r\n",
    "id,dx,age\ra,nv,50\rb,,\r", "\ufeff id , dx,age \n a ,nv, 50\n\n b,  ,\n,,\n", '"id","dx","age"\n"a","nv","50"\n"b","",""',
    "id,dx,age\na,nv,50,,\nb,,,\n"])
def test_tables_alike(tmp_path, content):
    "Catches a separator, an end of line, quotes, blanks, empty rows or empty cells at the end of a row that change what is read."
    (tmp_path/"t.csv").write_bytes(content.encode())
    table = read_table(tmp_path/"t.csv")
    assert list(table) == ["id", "dx", "age"] and table.fillna("-").to_numpy().tolist() == [["a", "nv", "50"], ["b", "-", "-"]]

def test_columns_without_a_name(tmp_path):
    "Catches the row numbers that pandas writes taken for a doubled or a missing column."
    (tmp_path/"t.csv").write_text(",id,\n0,a,x\n")
    assert list(read_table(tmp_path/"t.csv")) == ["column 1", "id", "column 3"]

def test_table_of_any_size(tmp_path, monkeypatch):
    "Catches a file of gigabytes read into memory because it is called labels.csv."
    (tmp_path/"t.csv").write_text("id,dx\na,nv\n")
    monkeypatch.setattr(files, "MOST_OF_TABLE", 10)
    with pytest.raises(DataError, match="t.csv has 11 bytes; a table has at most 10"): read_table(tmp_path/"t.csv")
    for wrong in (5, None): pytest.raises(DataError, read_table, wrong).match("is no path of a table")

# ---- arrays

def member(shape, dtype="|u1", n=100):
    "An array's header, whatever it claims, and some bytes."
    np.lib.format.write_array_header_1_0(head := io.BytesIO(), dict(descr=dtype, fortran_order=False, shape=shape))
    return head.getvalue() + bytes(n)

ARRAYS_BAD = dict(
    terabytes=(member((10**6, 4096, 4096)), "takes 16,777,216,000,000 bytes; at most 2,147,483,648 are allowed"),
    beyond_64_bits=(member((2**62, 2**62, 4)), "at most 2,147,483,648 are allowed"),
    more_than_there=(member((9, 9, 9)), "takes 729 bytes, but 100 are there"), less_than_there=(member((1, 2)), "takes 2 bytes, but 100"),
    negative=(member((-5, 4, 4)), "shape (-5, 4, 4)"), objects=(member((4,), "|O"), "Object arrays cannot be loaded"),
    no_array=(b"PK nothing", "cannot be read"), empty=(b"", "cannot be read"), header_cut=(member((2, 2))[:40], "cannot be read"),
    no_type=(member((2, 2)).replace(b"|u1", b"!!!"), "cannot be read"), version=(b"\x93NUMPY\x09" + member((2, 2))[7:], "cannot be read"))

@pytest.mark.parametrize("content, message", ARRAYS_BAD.values(), ids=ARRAYS_BAD)
def test_arrays_bad(tmp_path, content, message):
    "Catches memory taken for what a header claims (MemoryError, or a machine that stops), and errors without the file."
    write_zip(tmp_path/"a.npz", {"x.npy": content})
    with pytest.raises(DataError) as caught: array_of(tmp_path/"a.npz", "x", ["x"])
    assert f"{tmp_path/'a.npz'}: x cannot be read" in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)

@pytest.mark.parametrize("array", [np.zeros((0, 4)), np.array("text"), np.arange(6).reshape(2, 3).T, np.array(["a", "bc"])], ids=str)
def test_arrays_good(tmp_path, array):
    "Catches an honest header that is refused: nothing in it, no axis, another order in memory, text."
    np.savez(tmp_path/"a.npz", x=array)
    assert np.array_equal(array_of(tmp_path/"a.npz", "x", ["x"]), array)

@pytest.mark.parametrize("damage", [lambda b: b.replace(b"PK\x01\x02", b"PK\x09\x09"), lambda b: b[::-1]])
def test_zips_damaged_in_their_list(tmp_path, damage):
    "Catches what zipfile lets through where its table of contents is broken."
    write_zip(tmp_path/"a.zip", {f"{i}.png": png(i) for i in range(3)})
    (tmp_path/"a.zip").write_bytes(damage((tmp_path/"a.zip").read_bytes()))
    with pytest.raises(DataError, match="a.zip is cut short or no zip file"): files.open_zip(tmp_path/"a.zip").close()

def test_zip_with_a_name_that_is_no_text(tmp_path):
    "Catches UnicodeDecodeError: a name that is marked as UTF-8 and is none."
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as archive: archive.writestr("næ.png", b"x")
    data = (tmp_path/"a.zip").read_bytes()
    (tmp_path/"a.zip").write_bytes(data.replace("næ".encode(), b"n\xff\xfe"))
    with pytest.raises(DataError, match="a.zip is cut short or no zip file"): files.open_zip(tmp_path/"a.zip")
