"Slice archives and frames: no row shifted, nothing cut or stretched unasked, every bad array named."

import numpy as np
import pandas as pd
import pytest
import torch
from small_sets import boxes_csv, edit_zip, ham, left, refused, slices, toy_slices

from medgan.data import brain
from medgan.data.images import load_data
from medgan.data.prepare import clear_cache
from medgan.data.registry import DataError

def test_slices(tmp_path, cache):
    "Catches shifted rows, slices cropped, stretched or put aside, masks that go another way than their images, [-1,1] for one channel."
    arrays, data = toy_slices(), slices(tmp_path/"toy")
    assert data.classes == ("healthy", "pathological") and len(data) == 6 and data.images.shape == (6, 30, 30, 1)
    assert list(data.table.group) == [f"slices/s{i}" for i in (0, 0, 1, 1, 2, 2)] and set(data.table.source) == {"slices"}
    assert data.labels.tolist() == [0, 1]*3 and data.table.is_pathological.tolist() == [False, True]*3
    assert data.table.is_pathological.dtype == bool
    assert np.allclose(data.table.lesion_share, [0, 6*7/600]*3)
    batch = data.read(np.arange(6))
    padded = {k: np.pad(arrays[k], ((0, 0), (0, 0), (5, 5))) for k in ("flair", "mask")}
    assert batch["image"].dtype == torch.float32 and batch["image"].is_contiguous()
    assert np.array_equal(batch["image"][:, 0].numpy(), padded["flair"].astype(np.float32)/np.float32(255))
    assert np.array_equal(batch["mask"][:, 0].numpy(), padded["mask"])
    assert torch.equal(data[1]["box"], torch.tensor([10, 8, 17, 14])) and data[0]["box"].tolist() == [0]*4
    two = data.select(["pathological"])
    assert len(two) == 3 and torch.equal(two[1]["image"], batch["image"][3])

def test_slices_resized(tmp_path, cache):
    "Catches a resize before the padding (the brain would be stretched), and a mask that no longer lies on its lesion."
    flair = np.where(toy_slices()["mask"], 255, 0).astype(np.uint8)
    data = slices(tmp_path/"toy", size=15, flair=flair)
    image, mask = data.images[1, ..., 0], data.masks[1]
    assert mask.sum() == pytest.approx(42/4, abs=3) and image[mask].min() >= 110 and image[~mask].max() <= 160
    with pytest.warns(UserWarning, match="30 px; at size=64"): slices(tmp_path/"toy", size=64)

def test_slices_as_floats(tmp_path, cache):
    "Catches floats in [0,1] that are cut to 0 and 1 or rounded down, and masks of numbers that are taken otherwise than those of bool."
    plain = slices(tmp_path/"toy")
    flair, mask = toy_slices()["flair"], toy_slices()["mask"]
    for kind in (np.float16, np.float32, np.float64):
        assert slices(tmp_path/"toy", flair=(flair/255).astype(kind)).fingerprint == plain.fingerprint
    between = (np.clip(flair, 1, 254) + np.where(mask, .4, -.4))/255
    assert np.array_equal(slices(tmp_path/"toy", flair=between).images[:, :, 5:25, 0], np.clip(flair, 1, 254))
    for kind in (np.uint8, np.int64, np.float32): assert slices(tmp_path/"toy", mask=mask.astype(kind)).fingerprint == plain.fingerprint
    assert slices(tmp_path/"toy", mask=np.where(mask, .9995, .0004)).fingerprint == plain.fingerprint        # within a thousandth
    subject = np.array([" S0", "s0 ", "s1", "s1", "s2", "s2"])
    assert slices(tmp_path/"toy", subject=subject).table.group.nunique() == 3

def test_slices_cache(tmp_path, cache, monkeypatch):
    "Catches a cache that is written and never read, and one that does not see a changed archive."
    first = slices(tmp_path/"toy")
    with monkeypatch.context() as patched:
        patched.setattr(brain, "_framed_slice", lambda *_: pytest.fail("decoded again"))
        second = load_data("slices", str(tmp_path/"toy"), size=30)
    assert second.fingerprint == first.fingerprint and len(left(cache)) == 1 and isinstance(second.images, np.memmap)
    assert slices(tmp_path/"toy", flair=255 - toy_slices()["flair"]).fingerprint != first.fingerprint and len(left(cache)) == 2
    assert clear_cache("slices") == 2

def test_slices_split(tmp_path, cache):
    "Catches slices of one subject on two sides."
    n = 120
    arrays = toy_slices(n)
    parts = slices(tmp_path/"toy", **arrays).split()
    groups = [set(part.table.group) for part in parts.values()]
    assert sum(map(len, parts.values())) == n and len(set.union(*groups)) == sum(map(len, groups)) == n//2

SLICES_BAD = dict(
    no_flair=(dict(flair=None), "array flair is missing; the file has mask, subject"),
    no_mask=(dict(mask=None), "array mask is missing; the file has flair, subject"),
    no_subject=(dict(subject=None), "array subject is missing"),
    other_names=(dict(flair=None, mask=None, subject=None, t2=np.zeros(3)), "array flair, mask, subject is missing; the file has t2"),
    fewer_images=(dict(flair=toy_slices(5)["flair"]), "flair has shape (5, 30, 20), mask (6, 30, 20)"),
    fewer_masks=(dict(mask=toy_slices(5)["mask"]), "for each of the 5 slices"),
    turned=(dict(flair=toy_slices()["flair"].swapaxes(1, 2)), "flair has shape (6, 20, 30)"),
    channels=(dict(flair=toy_slices()["flair"][..., None]), "flair has shape (6, 30, 20, 1)"),
    fewer_subjects=(dict(subject=np.array(["a"]*5)), "subject (<U1, shape (5,)) must be text, a name for each of the 6 slices"),
    number_subjects=(dict(subject=np.arange(6)), "subject (int64, shape (6,)) must be text"),
    nameless=(dict(subject=np.array(["a", "", "b", "c", "d", "e"])), "subject"),
    objects=(dict(subject=toy_slices()["subject"].astype(object)), "subject cannot be read (Object arrays cannot be loaded"),
    object_flair=(dict(flair=toy_slices()["flair"].astype(object)), "flair cannot be read (Object arrays cannot be loaded"),
    int16=(dict(flair=toy_slices()["flair"].astype(np.int16)), "flair is int16; allowed are uint8, and float in [0,1]"),
    bool_flair=(dict(flair=toy_slices()["mask"]), "flair is bool"),
    bytes_as_floats=(dict(flair=toy_slices()["flair"].astype(np.float32)), "allowed are 0 to 1"),
    minus=(dict(flair=toy_slices()["flair"]/127.5 - 1), "float values from -1 to 1; allowed are 0 to 1"),
    nan=(dict(flair=np.where(toy_slices()["mask"], np.nan, .5)), "3 of 6 images hold NaN or infinite values (the first: image 1)"),
    inf=(dict(flair=np.where(toy_slices()["mask"], np.inf, .5)), "NaN or infinite"),
    grey_mask=(dict(mask=toy_slices()["mask"].astype(np.uint8)*255), "mask (uint8) holds other values than 0 and 1"),
    nan_mask=(dict(mask=np.where(toy_slices()["mask"], np.nan, 0)), "mask (float64) holds other values than 0 and 1"),
    text_mask=(dict(mask=toy_slices()["mask"].astype(str)), "mask (<U5) holds other values"),
    flat_mask=(dict(mask=toy_slices()["mask"][0]), "mask has shape (30, 20); it is (N,H,W)"),
    empty=(toy_slices(0), "mask has shape (0, 30, 20); it is (N,H,W) with at least one slice"),
    no_height=(toy_slices(6, 0, 20), "at least one slice"))

@pytest.mark.parametrize("changed, message", SLICES_BAD.values(), ids=SLICES_BAD)
def test_slices_bad(tmp_path, cache, changed, message):
    "Catches archives that medgan did not make: rows of other slices, a range or a type that becomes nonsense in silence, a pickle."
    with refused(cache, tmp_path/"toy"/"toy.npz", message): slices(tmp_path/"toy", **changed)

@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:len(b)//2], lambda b: b"", lambda b: b"<html>404</html>"],
                         ids=["end", "half", "empty", "html"])
def test_slices_no_archive(tmp_path, cache, damage):
    "Catches a BadZipFile (or numpy's talk of pickles) for an interrupted download, without the file's name."
    path = tmp_path/"toy.npz"
    np.savez_compressed(path, **toy_slices())
    path.write_bytes(damage(path.read_bytes()))
    with refused(cache, path, "cut short or no zip file"): load_data("slices", str(tmp_path), size=16)

def test_slices_damaged_inside(tmp_path, cache):
    "Catches wrong bytes inside an archive, a member that is no array and one that is cut short."
    path = tmp_path/"toy.npz"
    np.savez(path, **toy_slices())
    good = path.read_bytes()
    path.write_bytes(good[:1000] + bytes(200) + good[1200:])
    with refused(cache, path, "flair cannot be read"): load_data("slices", str(tmp_path), size=16)
    path.write_bytes(good)
    for name, cut in (("mask", lambda b: b"no array"), ("mask", lambda b: b[:-50]), ("subject", lambda b: b"")):
        edit_zip(path, lambda files: files.update({f"{name}.npy": cut(files[f"{name}.npy"])}))
        with refused(cache, path, f"{name} cannot be read"): load_data("slices", str(tmp_path), size=16)
        path.write_bytes(good)

def test_slices_in_a_folder(tmp_path, cache):
    "Catches that one of two archives is taken by chance, and a name that matches none."
    for name in ("a", "b"): np.savez(tmp_path/f"{name}.npz", **toy_slices())
    (tmp_path/"._a.npz").write_bytes(b"Mac OS X")
    with refused(cache, "2 files match *.npz", tmp_path, "a.npz, b.npz"): load_data("slices", str(tmp_path), size=16)
    with refused(cache, "0 files match c.npz", "a.npz, b.npz"): load_data("slices", str(tmp_path), size=16, archive="c.npz")
    assert len(load_data("slices", str(tmp_path), size=16, archive="b.npz")) == 6
    with pytest.raises(DataError, match=r"soop: no soop_axial.npz in .*ds004889"): load_data("soop", str(tmp_path), size=16)
    (tmp_path/"b.npz").rename(tmp_path/"soop_axial.npz")
    assert set(load_data("soop", str(tmp_path), size=16).table.source) == {"soop"}

@pytest.mark.parametrize("frame", [(20, 12), (40, 24), (20, 30), (36, 12), (21, 13), (35, 23), [20, 12]], ids=str)
def test_frame(tmp_path, cache, frame):
    "Catches frames with height and width exchanged, a corner instead of the centre, masks that go another way than their images."
    arrays = toy_slices()                                                    # 30 x 20
    slices(tmp_path)
    data = load_data("slices", str(tmp_path), size=frame[0], frame=frame)
    assert data.shape == tuple(frame) and data.size == frame[0] and data.images.shape == (6, *frame, 1) and data.masks.shape == (6, *frame)
    assert f"{frame[0]}x{frame[1]} px" in repr(data)
    for key, found in (("flair", data.images[..., 0]), ("mask", data.masks)):
        wide = np.pad(arrays[key], ((0, 0), (40, 41), (40, 41)))             # an odd pixel goes below or to the right
        top, left = (40 + (n - f)//2 if n >= f else 40 - (f - n)//2 for n, f in zip((30, 20), frame))
        assert np.array_equal(found, wide[:, top:top + frame[0], left:left + frame[1]])

def test_frame_resized(tmp_path, cache):
    "Catches a frame that is stretched, and a width that is not that of the frame's shape."
    flair = np.where(toy_slices()["mask"], 255, 0).astype(np.uint8)
    slices(tmp_path, flair=flair)
    data = load_data("slices", str(tmp_path), size=24, frame=(16, 20))
    assert data.shape == (24, 30)
    image, mask = data.images[1, ..., 0], data.masks[1]                      # the lesion, rows 8 to 14 and columns 5 to 12, begins at row 1
    assert mask.nonzero()[0].min() in (1, 2) and mask.sum() == pytest.approx(42*1.5**2, rel=.1)
    assert (mask & (image >= 128)).sum() > .8*(mask | (image >= 128)).sum()
    assert [m.shape for m in (data[1]["image"], data[1]["mask"])] == [(1, 24, 30)]*2

def test_frame_keeps_the_label(tmp_path, cache):
    "Catches a slice that turns healthy because its lesion lies outside the frame, and a frame that cache or fingerprint does not see."
    slices(tmp_path)
    data = load_data("slices", str(tmp_path), size=10, frame=(10, 10))
    other = load_data("slices", str(tmp_path), size=10, frame=(8, 8))
    corner = np.zeros((6, 30, 20), bool)
    corner[1, 0, 0] = True
    lost = slices(tmp_path/"corner", mask=corner)
    lost = load_data("slices", str(tmp_path/"corner"), size=10, frame=(10, 10))
    assert lost.table.dx.tolist() == ["healthy", "pathological", *["healthy"]*4] and not lost.masks.any()
    assert len({d.fingerprint for d in (data, other, load_data("slices", str(tmp_path), size=10))}) == 3

def test_frame_boxes(tmp_path, cache):
    "Catches boxes that are cut like squares while their slices are cut like frames."
    slices(tmp_path)
    ids = load_data("slices", str(tmp_path), size=30).table.id
    data = load_data("slices", str(tmp_path), size=40, frame=(20, 30), boxes=boxes_csv(tmp_path, [(ids[1], 5, 8, 12, 14)]))
    assert data.table.boxes[1] == (tuple(data[1]["box"].tolist()),) == ((20, 6, 34, 18),)
    with pytest.warns(UserWarning, match="1 of 1 boxes lie outside the frame"):
        load_data("slices", str(tmp_path), size=8, frame=(8, 8), boxes=boxes_csv(tmp_path, [(ids[1], 0, 0, 3, 3)]))

@pytest.mark.parametrize("frame", [208, (208,), (208, 160, 1), (208., 160), (0, 160), (208, -1), ("208", "160"), (True, 160), (2000, 160),
                                   "208x160"], ids=str)
def test_frame_bad(tmp_path, cache, frame):
    "Catches a frame that fails (or eats the memory) only while slices are decoded."
    np.savez(tmp_path/"toy.npz", **toy_slices())
    with refused(cache, f"frame={frame!r}", "two whole numbers from 8 to 1024"): load_data("slices", str(tmp_path), size=16, frame=frame)

def test_frame_of_photographs(tiny_ham, tmp_path, cache):
    "Catches a frame that is ignored where images are squares, and one whose width is nonsense at the wanted height."
    with refused(cache, "ham10000", "brain slices"): ham(tiny_ham, frame=(30, 20))
    with refused(cache, "phantom", "brain slices"): load_data("phantom", size=16, frame=(30, 20))
    np.savez(tmp_path/"toy.npz", **toy_slices())
    with refused(cache, "frame=(100, 8) at size=16 is 1 px wide"): load_data("slices", str(tmp_path), size=16, frame=(100, 8))

def stats(folder, **changed):
    "The toy archive as soop, and its measurements."
    folder.mkdir(exist_ok=True)
    np.savez(folder/"soop_axial.npz", **toy_slices() | dict(subject=np.array(list("fedcba"))))
    columns = dict(id=list("abcdef"), sharpness=[.05, .04, .09, .08, .03, .07],
                   lesion_to_rest_mean_ratio=[1.1, np.nan, 1.3, np.nan, 1.5, np.nan])
    pd.DataFrame({k: v for k, v in (columns | changed).items() if v is not None}).to_csv(folder/"axial_stats.csv", index=False)

def soop(folder, **options): return load_data("soop", str(folder), size=16, **options).table.group.str.removeprefix("soop/").tolist()

def test_soop_quality(tmp_path, cache, capsys):
    "Catches limits the wrong way round, healthy slices dropped for want of a contrast, rows matched by number, a silent loss."
    stats(tmp_path)
    assert soop(tmp_path) == list("abcdef") and capsys.readouterr().out == ""
    assert soop(tmp_path, min_sharpness=.05) == list("acdf") and "2 of 6 slices are left out" in capsys.readouterr().out
    assert soop(tmp_path, min_contrast=1.2) == list("bcdef")
    assert soop(tmp_path, min_sharpness=.05, min_contrast=1.3) == list("cdf") and "3 of 6" in capsys.readouterr().out

def test_soop_quality_bad(tmp_path, cache):
    "Catches measurements that are missing and pass for good ones."
    stats(tmp_path)
    with refused(cache, "no slice is left at min_sharpness=1"): soop(tmp_path, min_sharpness=1.)
    stats(tmp_path, sharpness=None)
    with refused(cache, "axial_stats.csv: column sharpness is missing"): soop(tmp_path, min_contrast=1.)
    stats(tmp_path, id=list("abcdex"))
    with refused(cache, "axial_stats.csv has no row for f"): soop(tmp_path, min_contrast=1.)
    (tmp_path/"axial_stats.csv").unlink()
    with refused(cache, "axial_stats.csv is not there"): soop(tmp_path, min_contrast=1.)
    assert len(soop(tmp_path)) == 6
