"Every file that is missing, twice there or no table is named; nothing half-made is left behind."

import numpy as np
import pytest
from small_sets import edit_metadata, edit_zip, ham, jpeg, refused

def test_zip_missing(tiny_ham, cache):
    "Catches half a data set taken for a whole one."
    (tiny_ham/"HAM10000_images_part_2.zip").unlink()
    with refused(cache, "21 of 42 images are missing", tiny_ham, "HAM10000_images_part_2.zip"): ham(tiny_ham)

def test_image_missing(tiny_ham, cache):
    "Catches an image skipped in silence."
    edit_zip(tiny_ham/"HAM10000_images_part_1.zip", lambda files: files.pop("ISIC_0000000.jpg"))
    with refused(cache, "1 of 42 images are missing", "ISIC_0000000", tiny_ham): ham(tiny_ham)

def test_image_twice(tiny_ham, cache):
    "Catches that one of two different images of one name is taken by chance."
    other = jpeg(np.random.default_rng(9), 60, 50)
    edit_zip(tiny_ham/"HAM10000_images_part_2.zip", lambda files: files.update({"ISIC_0000000.jpg": other}))
    with refused(cache, "ISIC_0000000", "twice", "part_1.zip", "part_2.zip"): ham(tiny_ham)

@pytest.mark.parametrize("column", ["image_id", "lesion_id", "dx"])
def test_column_missing(tiny_ham, cache, column):
    "Catches a KeyError of pandas."
    edit_metadata(tiny_ham, lambda t: t.drop(columns=column))
    needed = "id or image_id or isic_id or image_name or image or img_id" if column == "image_id" else column
    with refused(cache, tiny_ham/"HAM10000_metadata", f"column {needed} is missing", "dx_type"): ham(tiny_ham)

@pytest.mark.parametrize("content", ["", "lesion_id,image_id,dx\n", b"\x89PNG\r\n\x1a\n\x00\xff\xfe"], ids=["no byte", "no row", "no text"])
def test_metadata_without_rows(tiny_ham, cache, content):
    "Catches a data set of zero images, and a traceback of pandas where the file is no table."
    (tiny_ham/"HAM10000_metadata").write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(cache, "HAM10000_metadata"): ham(tiny_ham)

@pytest.mark.parametrize("keep", [0.9, 0.5, 0], ids=["end missing", "half", "empty"])
def test_zip_cut_short(tiny_ham, cache, keep):
    "Catches a BadZipFile without the file's name (an interrupted download)."
    path = tiny_ham/"HAM10000_images_part_2.zip"
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size*keep)])
    with refused(cache, path, "cut short"): ham(tiny_ham)

def test_masks_half_there(tiny_ham, cache):
    "Catches that masks are dropped, or that images lose theirs, in silence."
    end = "HAM10000_segmentations_lesion_tschandl/ISIC_0000300"
    half = lambda files: [files.pop(n) for n in list(files) if "_segmentation" in n and n < end]
    edit_zip(tiny_ham/"HAM10000_segmentations_lesion_tschandl.zip", half)
    with refused(cache, "segmentations", "18 of 42", "ISIC_0"): ham(tiny_ham)
