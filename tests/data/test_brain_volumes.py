"Volumes: every naming and orientation gives the same slices, and their masks tell the classes."
import os
import time

import nibabel as nib
import numpy as np
import pytest
from small_sets import left, refused, save, toy_volume, volumes

from medgan.data.images import load_data
from medgan.data.prepare import clear_cache
from medgan.data.registry import DataError

def expected(flair, labels):
    "Pictures and masks of all slices of RAS+ voxels, anterior up and left on the left, in the middle of a square."
    top = np.percentile(flair, 99.5)
    side, (height, width) = max(flair.shape[:2]), flair.shape[1::-1]
    pad = [(0, 0)] + [((side - n)//2, side - n - (side - n)//2) for n in (height, width)]
    picture = lambda v: np.stack([np.rot90(v[:, :, z]) for z in range(v.shape[2])])
    return (np.pad(picture(v), pad) for v in (np.rint(np.clip(flair/top, 0, 1)*255).astype(np.uint8), labels > 0))

def test_volumes(tmp_path, cache):
    "Catches slices in another order, turned or mirrored; a percentile of the slice, not the volume; one label taken for the lesion."
    data = volumes(tmp_path, cases=("p2", "p1"))
    for rows, seed in ((slice(12), 1), (slice(12, 24), 0)):                  # p1 was written after p2
        images, masks = expected(toy_volume(seed=seed)[0], toy_volume()[1])
        found = data.images[rows, ..., 0]
        assert np.abs(found.astype(int) - images).max() <= 1 and (found != images).mean() < 1e-3
        assert np.array_equal(data.masks[rows], masks) and (found == 255).any()
    assert data.classes == ("healthy", "pathological") and data.table.dx.tolist() == (["healthy"]*7 + ["pathological"]*3 + ["healthy"]*2)*2
    assert data.labels.tolist() == [0]*7 + [1]*3 + [0]*9 + [1]*3 + [0]*2 and data.table.is_pathological.dtype == bool
    assert list(data.table.id[:13]) == [f"p1_{z:03d}" for z in range(12)] + ["p2_000"]
    assert list(data.table.group) == ["nifti/p1"]*12 + ["nifti/p2"]*12
    assert np.allclose(data.table.lesion_share[:12], masks.sum(axis=(1, 2))/(20*26))
    assert np.allclose(data.table.level[:12], (np.arange(12) + .5)/12)
    batch = data.read(np.arange(24))
    assert batch["image"].shape == (24, 1, 26, 26) and 0 <= batch["image"].min() and batch["image"].max() == 1
    assert batch["mask"].sum() == 2*masks.sum()
    assert len(data.select(["pathological"])) == 6

ORIENTATIONS = ["RAS", "LPS", "LAS", "RPI", "ASR", "SAL", "IPL", "PIR"]

@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_volumes_orientation(tmp_path, cache, axes):
    "Catches code that trusts the order in which voxels are stored; a mask that is turned by itself; levels counted from above."
    flair, labels = toy_volume()
    turned = [nib.Nifti1Image(v, np.array([[1, .02, 0, -9], [-.02, 2, 0, 5], [0, 0, 3, 7.], [0, 0, 0, 1]])) for v in (flair, labels)]
    turn = nib.orientations.ornt_transform(nib.io_orientation(turned[0].affine), nib.orientations.axcodes2ornt(axes))
    turned = [image.as_reoriented(turn) for image in turned]
    assert "".join(nib.aff2axcodes(turned[0].affine)) == axes
    data = volumes(tmp_path/"turned", flair=np.asarray(turned[0].dataobj), labels=np.asarray(turned[1].dataobj), affine=turned[0].affine)
    plain = volumes(tmp_path/"plain")
    assert data.fingerprint == plain.fingerprint and np.array_equal(data.table.level, plain.table.level)

def alike(*cases, image="{c}/{c}_flair.nii.gz", mask="{c}/{c}_seg.nii.gz", group=lambda c: c):
    "Image, mask, case and group of cases whose files are named alike."
    return [(image.format(c=c), mask.format(c=c), c, group(c)) for c in cases]

NAMINGS = dict(     # data set, files
    brats2015=("brats2015", alike("brats_2013_pat0001_1", group=lambda c: "brats_2013_pat0001")
               + alike("brats_tcia_pat153_0002", "brats_tcia_pat153_0109", group=lambda c: "brats_tcia_pat153",
                       image="{c}/{c}_flair.nii", mask="{c}/{c}_seg.nii")),
    lgg=("lgg", alike("TCGA_CS_4941_19960909", "TCGA_DU_7019_19940908")),
    brats2018=("brats", alike("Brats18_2013_10_1", image="HGG/{c}/{c}_flair.nii.gz", mask="HGG/{c}/{c}_seg.nii.gz")
               + alike("Brats18_TCIA09_141_1", image="LGG/{c}/{c}_flair.nii.gz", mask="LGG/{c}/{c}_seg.nii.gz")),
    brats2020=("brats", alike("BraTS20_Training_001", image="{c}/{c}_flair.nii", mask="{c}/{c}_seg.nii")
               + alike("BraTS20_Training_355", image="{c}/{c}_flair.nii", mask="{c}/W39_1998.09.19_Segm.nii")),
    brats2021=("brats", alike("BraTS2021_00000", "BraTS2021_00002")),
    brats2023=("brats", alike("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000",
                              image="{c}/{c}-t2f.nii.gz", mask="{c}/{c}-seg.nii.gz", group=lambda c: c[:-4])),
    isles2015=("isles2015", [(f"{n}/{i}/{i}.nii", f"{n}/{m}/{m}.nii", n, n) for n, i, m in (
        ("1", "VSD.Brain.XX.O.MR_Flair.70614", "VSD.Brain.XX.O.OT.70616"),
        ("12", "VSD.Brain.XX.O.MR_Flair.70735", "VSD.Brain.XX.O.OT.70737"))]),
    isles_flat=("isles2015", [("1/VSD.Brain.XX.O.MR_Flair.70614.nii.gz", "1/VSD.Brain.XX.O.OT.70616.nii.gz", "1", "1")]),
    flat=("nifti", [(f"{c}_flair.nii.gz", f"{c}_{m}.nii.gz", c, c) for c, m in (
        ("a", "seg"), ("b_1", "mask"), ("c", "flair_lesion_mask"), ("d", "label"))]),
    capitals=("nifti", [("sub-01_FLAIR.NII.GZ", "sub-01_FLAIR_Mask.NII.GZ", "sub-01", "sub-01"),
                        ("sub-02_Flair.nii", "sub-02_Seg.NII", "sub-02", "sub-02")]),
    nameless=("nifti", [("a/flair.nii.gz", "a/mask.nii.gz", "a", "a"), ("b/FLAIR.nii", "b/lesions.nii", "b", "b")]))

@pytest.mark.parametrize("name, files", NAMINGS.values(), ids=NAMINGS)
def test_volumes_namings(tmp_path, cache, name, files):
    "Catches files of a year not found, a case under another's name, scans of one patient that count as two, other sequences as FLAIR."
    flair, labels = toy_volume()
    folder = tmp_path/name
    for i, (image, mask, *_) in enumerate(files):
        save(folder/image, flair + np.int16(i)*(flair > 0))
        save(folder/mask, np.roll(labels, i % 3, 2))                         # as many slices higher up
    for other in ("_t1.nii.gz", "_t1ce.nii.gz", "-t2w.nii.gz"): save((folder/files[0][0]).parent/f"other{other}", flair)
    (folder/"._x_flair.nii.gz").write_bytes(b"Mac OS X")
    (folder/"survival_info.csv").write_text("id,age\n")
    data = load_data(name, str(folder), size=26)
    by_case = {case: (group, i) for i, (*_, case, group) in enumerate(files)}
    assert len(data) == 12*len(files) and set(data.table.source) == {name}
    for row in data.table.itertuples():
        case, z = row.id.rsplit("_", 1)
        assert row.group == f"{name}/{by_case[case][0]}" and row.is_pathological == (7 <= int(z) - by_case[case][1] % 3 < 10)
    if name not in ("nifti", "brats"):                                       # data_dir names the folder of these
        assert load_data(name, str(tmp_path), size=26).fingerprint == data.fingerprint

def test_volumes_of_one_set(cache, tmp_path):
    "Catches a set that takes in its neighbours under the same root."
    for name, case in (("brats2015", "brats_2013_pat0001_1"), ("lgg", "TCGA_CS_4941_19960909"), ("brats", "BraTS2021_00000")):
        for path, voxels in zip((f"{case}_flair.nii.gz", f"{case}_seg.nii.gz"), toy_volume()): save(tmp_path/"brain"/name/case/path, voxels)
    for root in (tmp_path, tmp_path/"brain"):
        for name in ("brats2015", "lgg", "brats"): assert set(load_data(name, str(root), size=26).table.source) == {name}
        assert load_data("lgg", str(root), size=26).table.group.nunique() == 1
    for path, voxels in zip(("a_flair.nii", "a_seg.nii"), toy_volume()): save(tmp_path/"brain"/"nifti"/path, voxels)
    for name in ("nifti", "brats"): assert load_data(name, str(tmp_path/"brain"), size=26).table.group.nunique() == 1

@pytest.mark.parametrize("middle, levels", [(60, range(12)), (12, range(12)), (5, range(3, 8)), (4., range(4, 8)), (1, [5]),
                                            (.5, range(3, 9)), (.01, [5])], ids=str)
def test_volumes_middle(tmp_path, cache, middle, levels):
    "Catches the lowest slices taken for the middle ones, an error where a volume has fewer, a share of the wrong thing."
    data = volumes(tmp_path, middle=middle)
    assert data.table.id.tolist() == [f"p1_{z:03d}" for z in levels]
    whole = volumes(tmp_path)
    assert np.array_equal(data.images, whole.images[list(levels)])           # grey values are those of the volume, not of these slices
    assert np.array_equal(data.table.lesion_share, whole.table.lesion_share[list(levels)])

@pytest.mark.parametrize("middle", [0, -3, 1.5, True, "60", None, float("nan"), float("inf")])
def test_volumes_bad_middle(tmp_path, cache, middle):
    "Catches a number of slices that gives none, or fails far away."
    with refused(cache, f"middle={middle!r}"): volumes(tmp_path, middle=middle)

def test_volumes_frame(tmp_path, cache):
    "Catches volumes that go into a frame otherwise than slices, and a label that is taken from the frame or from the reduced mask."
    images, masks = expected(*toy_volume())
    data = volumes(tmp_path, size=20, frame=(20, 30))
    assert data.shape == (20, 30) and (np.pad(images, ((0, 0), (0, 0), (2, 2)))[:, 3:23] != data.images[..., 0]).mean() < 1e-3
    assert np.array_equal(np.pad(masks, ((0, 0), (0, 0), (2, 2)))[:, 3:23], data.masks)
    speck = np.zeros((20, 26, 12), np.uint8)
    speck[0, 0, 4] = 1
    for options in (dict(size=8), dict(size=8, frame=(8, 8))):
        data = volumes(tmp_path/"speck", labels=speck, **options)
        assert not data.masks.any() and np.flatnonzero(data.table.is_pathological).tolist() == [4] and data.table.lesion_share[4] == 1/520

def test_volumes_kinds(tmp_path, cache):
    "Catches voxels of another type, or scaled by the header, that give other pictures; labels as floats; a volume without lesion."
    flair, labels = toy_volume()
    plain = volumes(tmp_path/"plain").images
    for kind in (np.uint16, np.int32, np.float32, np.float64, ">i2"):
        data = volumes(tmp_path/"kind", flair=flair.astype(kind), labels=labels.astype(np.float32))
        assert np.abs(data.images.astype(int) - plain).max() <= 1 and data.table.is_pathological.sum() == 3
    image = nib.Nifti1Image(flair, np.eye(4))
    image.header.set_slope_inter(2.5, 0)
    nib.save(image, tmp_path/"kind"/"p1"/"p1_flair.nii.gz")
    assert np.abs(load_data("nifti", str(tmp_path/"kind"), size=26).images.astype(int) - plain).max() <= 1
    noisy = flair - 4*(flair == 0).astype(np.int16)                          # what interpolation leaves
    assert np.abs(volumes(tmp_path/"noisy", flair=noisy).images.astype(int) - plain).max() <= 1
    assert set(volumes(tmp_path/"none", labels=labels*0).table.dx) == {"healthy"}

def test_volumes_split(tmp_path, cache):
    "Catches slices of one patient on two sides, whose scans are two cases."
    cases = [f"BraTS-GLI-{i:05d}-{j:03d}" for i in range(8) for j in range(2)]
    parts = volumes(tmp_path, "brats", cases=cases).split(seed=2)
    groups = [set(part.table.group) for part in parts.values()]
    assert sum(map(len, parts.values())) == 12*16 and len(set.union(*groups)) == sum(map(len, groups)) == 8

def test_volumes_cache(tmp_path, cache):
    "Catches a second opening that reads volumes (here they cannot be read), and a cache that does not see other slices, frames or files."
    first = volumes(tmp_path, cases=("a", "b"), middle=6)
    others = [volumes(tmp_path, cases=("a", "b"), **options) for options in (dict(middle=6, frame=(26, 20)), {})]
    assert first.fingerprint not in [other.fingerprint for other in others]
    first = load_data("nifti", str(tmp_path), size=26, middle=6)
    for path in tmp_path.rglob("*.nii.gz"):
        stat, data = path.stat(), path.read_bytes()
        path.write_bytes(data[:-8] + bytes(8))                               # without its checksum: only the header can be read
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = load_data("nifti", str(tmp_path), size=26, middle=6)
    assert again.fingerprint == first.fingerprint and again.table.equals(first.table) and isinstance(again.images, np.memmap)
    with pytest.raises(DataError, match="is no NIfTI volume, or cut short"): load_data("nifti", str(tmp_path), size=26, middle=5)
    assert clear_cache("nifti") >= 3 and left(cache) == []

def test_volumes_speed(tmp_path, cache):
    "Catches a volume that takes too long: 240 x 240 x 155 voxels in under 2 s."
    flair, labels = np.zeros((240, 240, 155), np.int16), np.zeros((240, 240, 155), np.uint8)
    flair[40:200, 30:210, 10:140] = np.random.default_rng(0).integers(100, 1500, (160, 180, 130))
    labels[60:90, 100:130, 60:90] = 2
    save(tmp_path/"a_flair.nii.gz", flair), save(tmp_path/"a_seg.nii.gz", labels)
    started = time.process_time()
    data = load_data("nifti", str(tmp_path), size=104, frame=(208, 160))
    seconds = time.process_time() - started
    assert len(data) == 60 and seconds < 2, f"{seconds:.2f} s"

def test_sessions_of_one_person(tmp_path, cache):
    "Catches two sessions of a person (BIDS) on two sides, and cases of one patient that only the user can tell."
    data = volumes(tmp_path/"bids", cases=("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1_run-2"))
    assert sorted(set(data.table.group)) == ["nifti/sub-01", "nifti/sub-02"]
    data = volumes(tmp_path/"own", cases=("a_1", "a_2", "b_1"), groups=r"(?P<group>.*)_\d")
    assert sorted(set(data.table.group)) == ["nifti/a", "nifti/b"]

def test_volume_that_is_not_fetched(tmp_path, cache):
    "Catches a person left out without a word because the files are links to nothing."
    volumes(tmp_path, cases=("a", "b"))
    for path in (tmp_path/"b").iterdir():
        path.unlink()
        path.symlink_to(tmp_path/"annex"/path.name)
    with pytest.warns(UserWarning, match="2 pictures are left out, such as .*b_flair.nii.gz .a link to a file that is not there"):
        assert set(load_data("nifti", str(tmp_path), size=26).table.group) == {"nifti/a"}
