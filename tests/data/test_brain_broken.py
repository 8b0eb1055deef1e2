"Volumes that are no FLAIR, masks that are not theirs, files cut short: each is named."

import numpy as np
import pytest
from small_sets import refused, save, toy_volume, volumes

from medgan.data.images import load_data
from medgan.data.registry import DataError

def nan_at(array, value=np.nan):
    array = array.astype(np.float32)
    array[3, 4, 5] = value
    return array

FLAIR, LABELS = toy_volume()

FAR = np.array([[1, 0, 0, 5.], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

VOLUMES_BAD = dict(
    mask_shape=(dict(labels=LABELS[..., :11]), "p1_seg.nii.gz has shape (20, 26, 11), its image", "p1_flair.nii.gz (20, 26, 12)"),
    mask_affine=(dict(mask_affine=FAR), "p1_seg.nii.gz has the affine", "resample the mask"),
    mask_mirrored=(dict(mask_affine=np.diag([-1., 1, 1, 1])), "p1_seg.nii.gz has the affine", "resample the mask"),
    four=(dict(flair=np.stack([FLAIR]*4, 3)), "p1_flair.nii.gz has shape (20, 26, 12, 4); a volume has three axes"),
    four_masks=(dict(labels=np.stack([LABELS]*4, 3)), "p1_seg.nii.gz has shape (20, 26, 12, 4); a volume has three axes"),
    two=(dict(flair=FLAIR[..., 0], labels=LABELS[..., 0]), "p1_flair.nii.gz has shape (20, 26); a volume has three axes"),
    zeros=(dict(flair=FLAIR*0), "p1_flair.nii.gz: 99.5 % of the voxels are 0: the volume is empty"),
    nan=(dict(flair=nan_at(FLAIR)), "p1_flair.nii.gz: 1 voxels are NaN or infinite"),
    inf=(dict(flair=nan_at(FLAIR, np.inf)), "p1_flair.nii.gz: 1 voxels are NaN or infinite"),
    nan_mask=(dict(labels=nan_at(LABELS)), "p1_seg.nii.gz: 1 voxels are NaN or infinite"),
    negative=(dict(flair=nan_at(FLAIR, -20)), "p1_flair.nii.gz: values down to -20", "z-scores"),
    z_scores=(dict(flair=((FLAIR - FLAIR.mean())/FLAIR.std()).astype(np.float32)), "p1_flair.nii.gz: values down to -", "z-scores"),
    all_negative=(dict(flair=-FLAIR), "p1_flair.nii.gz: values down to -"),
    half_label=(dict(labels=nan_at(LABELS, .5)), "p1_seg.nii.gz: labels are whole numbers from 0", "found 0.5"),
    minus_label=(dict(labels=nan_at(LABELS, -1)), "p1_seg.nii.gz: labels are whole numbers from 0", "found -1"),
    colours=(dict(flair=np.zeros((20, 26, 12), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "p1_flair.nii.gz holds"))

@pytest.mark.parametrize("changed, message", [(c, m) for c, *m in VOLUMES_BAD.values()], ids=VOLUMES_BAD)
def test_volumes_bad(tmp_path, cache, changed, message):
    "Catches volumes that are no FLAIR and masks that are not theirs, and a message that does not name the file."
    with refused(cache, tmp_path/"p1", *message): volumes(tmp_path, **changed)

@pytest.mark.parametrize("row", [(0, 0, 0, 0), (0, 0, np.nan, 0), (0, 1, 0, 0)], ids=str)
def test_volumes_bad_affine(tmp_path, cache, row):
    "Catches a volume that lies nowhere in space, with a traceback of its turning."
    for part, voxels in zip(("flair", "seg"), toy_volume()): path = save(tmp_path/f"a_{part}.nii", voxels)
    path = path.with_name("a_flair.nii")
    data = bytearray(path.read_bytes())
    data[312:328] = np.array(row, "<f4").tobytes()                           # the affine's third row
    path.write_bytes(data)
    with refused(cache, f"{path}: its affine", "does not tell how the volume lies"): load_data("nifti", str(tmp_path), size=16)

@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:len(b)//2], lambda b: b[:100], lambda b: b"",
                                    lambda b: b"<html>404</html>"*30],
                         ids=["end", "half", "header", "empty", "html"])
def test_volumes_cut_short(tmp_path, cache, damage, ending):
    "Catches an interrupted download with a traceback of nibabel, or taken for a volume."
    for part, voxels in zip(("flair", "seg"), toy_volume()): path = save(tmp_path/f"a_{part}.{ending}", voxels)
    path.write_bytes(damage(path.read_bytes()))
    with refused(cache, path, "is no NIfTI volume, or cut short"): load_data("nifti", str(tmp_path), size=16)

def test_volumes_damaged_inside(tmp_path, cache):
    "Catches wrong bytes inside a compressed volume: nibabel does not compare the checksum."
    volumes(tmp_path)
    path = tmp_path/"p1"/"p1_flair.nii.gz"
    data = bytearray(path.read_bytes())
    data[-6] ^= 1                                                            # in the checksum: all voxels can be read
    path.write_bytes(data)
    with pytest.raises(DataError, match="p1_flair.nii.gz is no NIfTI volume, or cut short"): load_data("nifti", str(tmp_path), size=16)

PAIRS_BAD = dict(
    two_folders=("brats", ("HGG/x/x_flair.nii.gz", "HGG/x/x_seg.nii.gz", "LGG/x/x_flair.nii.gz", "LGG/x/x_seg.nii.gz"),
                 "the subject x stands there twice", "HGG/x", "LGG/x"),
    two_endings=("nifti", ("x/x_flair.nii", "x/x_flair.nii.gz", "x/x_seg.nii"), "x has two files for one", "x_flair.nii.gz"),
    no_mask=("brats", ("a/a_flair.nii.gz", "a/a_seg.nii.gz", "x/x_flair.nii.gz"), "x_flair.nii.gz has no mask beside it"),
    no_image=("nifti", ("a_flair.nii.gz", "a_seg.nii.gz", "b_seg.nii.gz"), "b_seg.nii.gz has no image beside it"),
    other_names=("nifti", ("a_flair.nii.gz", "b_flair.nii.gz", "a_seg.nii.gz", "c_seg.nii.gz"), "b_flair.nii.gz has no mask"),
    other_sequences=("brats", ("a/a_t1.nii.gz", "a/a_t2.nii.gz"), "no volumes in", "flair or t2f"))

@pytest.mark.parametrize("name, paths, message", [(n, p, m) for n, p, *m in PAIRS_BAD.values()], ids=PAIRS_BAD)
def test_volumes_bad_pairs(tmp_path, cache, name, paths, message):
    "Catches a subject that counts twice (and may stand on two sides of a split), another's mask, and a case that is skipped in silence."
    for path in paths: save(tmp_path/path, toy_volume()["seg" in path])
    with refused(cache, name, *message): load_data(name, str(tmp_path), size=16)

@pytest.mark.parametrize("name", ["brats", "brats2015", "lgg", "isles2015", "nifti"])
def test_volumes_missing(tmp_path, cache, name):
    "Catches a message without the place or without where to get the data."
    with refused(cache, name, tmp_path, "Get the data set from"): load_data(name, str(tmp_path), size=16)
