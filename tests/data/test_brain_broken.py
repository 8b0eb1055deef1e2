"Volumes that are no FLAIR, masks that are not theirs, files cut short: each is named."
import gzip
import tracemalloc

import nibabel as nib
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

def header(path, data=bytes(64), pack=False, **changed):
    "A NIfTI file whose header claims anything."
    head, usual = nib.Nifti1Header(), dict(dim=[3, 4, 4, 2, 1, 1, 1, 1], datatype=4, bitpix=16, pixdim=[1]*8, vox_offset=352, magic=b"n+1")
    for name, value in (usual | changed).items(): head[name] = value
    whole = head.binaryblock + bytes(4) + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(whole) if pack else whole)

HUGE = [3, 32767, 32767, 32767, 1, 1, 1, 1]

HEADERS_BAD = dict(
    huge=(dict(dim=HUGE), "has 32767 x 32767 x 32767 voxels; at most 67,108,864 are allowed"),
    huge_packed=(dict(dim=HUGE, pack=True), "has 32767 x 32767 x 32767 voxels; at most 67,108,864 are allowed"),
    negative=(dict(dim=[3, -4, 4, 4, 1, 1, 1, 1]), "has shape (-4, 4, 4)"),
    none=(dict(dim=[3, 0, 4, 4, 1, 1, 1, 1]), "has shape (0, 4, 4)"),
    seven=(dict(dim=[7, 4, 4, 2, 2, 1, 1, 1]), "has shape (4, 4, 2, 2, 1, 1, 1); a volume has three axes"),
    unknown=(dict(datatype=999), "is no NIfTI volume"),
    complex_numbers=(dict(datatype=32, bitpix=64), "holds complex64; allowed are whole"),
    scaled=(dict(scl_slope=1e38, scl_inter=1e38), "values up to", "at most 4.29497e+09 are allowed: is its scaling"),
    nowhere=(dict(sform_code=1, srow_x=[np.nan]*4), "does not tell how the volume lies in space"),
    bomb=(dict(data=bytes(2**26), pack=True), "it holds over 1 MB more than the 416 bytes of which its header tells"),
    short=(dict(data=bytes(30)), "cut short"), short_packed=(dict(data=bytes(30), pack=True), "cut short"))

@pytest.mark.parametrize("changed, message", [(c, m) for c, *m in HEADERS_BAD.values()], ids=HEADERS_BAD)
def test_volumes_that_claim_too_much(tmp_path, cache, changed, message):
    "Catches memory taken for what a header claims, a stream of zeros that is unpacked to its end, and raw errors of nibabel."
    ending = "nii.gz" if changed.get("pack") else "nii"
    changed = dict(data=np.arange(32, dtype=np.int16).tobytes()) | changed
    for part in ("flair", "seg"): header(tmp_path/"c1"/f"c1_{part}.{ending}", **changed)
    tracemalloc.start()
    with refused(cache, "nifti: ", tmp_path/"c1", *message): load_data("nifti", str(tmp_path), size=16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24

def test_labels_near_whole_numbers(tmp_path, cache):
    "Catches .9998 refused, .0003 taken for lesion, and .998 taken for a label."
    labels = LABELS + np.where(LABELS > 0, -.0004, .0003).astype(np.float32)
    assert np.array_equal(volumes(tmp_path/"near", labels=labels).masks, volumes(tmp_path/"whole").masks)
    far = labels.copy()
    far[4, 15, 7] = .998
    with pytest.raises(DataError, match=r"nifti: .*p1_seg.nii.gz: labels are whole numbers from 0, and 0 is no lesion; found 0.998"):
        volumes(tmp_path/"far", labels=far)

def test_volumes_in_other_files(tmp_path, cache):
    "Catches a patient left out without a word because the volumes are packed otherwise."
    for path, voxels in zip(("a_flair.nii.gz", "a_seg.nii.gz"), (FLAIR, LABELS)): save(tmp_path/path, voxels)
    for name in ("b_flair.nii.bz2", "b_seg.nii.bz2", "c_flair.mha", "notes.mha"): (tmp_path/name).write_bytes(b"x")
    (tmp_path/"d_flair.nii").symlink_to(tmp_path/"annex")
    with pytest.warns(UserWarning, match="4 pictures are left out, such as .*b_flair.nii.bz2 .endings that are read: .nii, .nii.gz"):
        assert set(load_data("nifti", str(tmp_path), size=26).table.group) == {"nifti/a"}

@pytest.mark.parametrize("names", [("sub-01_ses-1", "SUB-01_ses-2"), ("BraTS-GLI-00005-000", "brats-gli-00005-001")], ids=str)
def test_patients_in_other_letters(tmp_path, cache, names):
    "Catches one patient on two sides because one scan's name is in capitals."
    assert volumes(tmp_path, cases=names).table.group.nunique() == 1

def test_how_volumes_are_written(tmp_path, cache):
    "Catches a prepared set that does not tell how many bits its volumes had."
    kind = {int(v): set(volumes(tmp_path/str(v), flair=FLAIR.astype(f"i{v//8}")).table.written_as) for v in (16, 32)}
    rule = "grey; the volume's 99.5th percentile is shown as 255"
    assert kind == {16: {f"NIfTI, 16 bits, {rule}"}, 32: {f"NIfTI, 32 bits, {rule}"}}
    assert set(volumes(tmp_path/"f", flair=FLAIR.astype(np.float32)).table.written_as) == {f"NIfTI, 32 bits float, {rule}"}
