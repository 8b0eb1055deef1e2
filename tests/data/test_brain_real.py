"The real brain sets, where $MEDGAN_DATA names them."
import time

import numpy as np
import pytest

from medgan.data.images import class_counts, load_data

def test_real_soop(real_data, cache):
    "Catches lost slices, labels that do not follow the masks, and a brain that is turned or stretched."
    folder = next((p.parent for p in real_data.glob("**/soop_axial.npz")), None)
    if folder is None: pytest.skip("soop is not in MEDGAN_DATA")
    data = load_data("soop", str(folder), size=189)                          # the slices' longer side: nothing is resized
    assert len(data) == data.table.group.nunique() == 1449 and data.table.dx.value_counts().to_dict() == dict(pathological=925, healthy=524)
    own = load_data("slices", str(folder), size=189).table
    assert data.table.equals(own.assign(source="soop", group=own.group.str.replace("slices/", "soop/")))
    with np.load(folder/"soop_axial.npz", allow_pickle=False) as archive:
        flair, mask, subject = (archive[k] for k in ("flair", "mask", "subject"))
    row = {name: i for i, name in enumerate(subject)}
    order = [row[group] for group in data.table.group.str.removeprefix("soop/")]
    assert np.array_equal(data.images[:, :, 16:173, 0], flair[order]) and not data.images[:, :, :16].any()
    assert not data.images[:, :, 173:].any()
    assert np.array_equal(data.masks[:, :, 16:173], mask[order])
    assert np.array_equal(data.table.is_pathological, mask[order].any(axis=(1, 2)))
    assert np.allclose(data.table.lesion_share, mask[order].mean(axis=(1, 2)))
    assert data.read(np.arange(64))["image"].shape == (64, 1, 189, 189)
    parts = load_data("soop", str(folder), size=64).split()
    counts = class_counts(parts)
    assert counts.filter(like="images").to_numpy().sum() == 1449 and (counts > 100*.7).all(axis=None)

def test_real_soop_in_a_frame(real_data, cache):
    "Catches slices whose brain the frame cuts, and limits that leave out other slices than they say."
    folder = next((p.parent for p in real_data.glob("**/soop_axial.npz")), None)
    if folder is None: pytest.skip("soop is not in MEDGAN_DATA")
    data = load_data("soop", str(folder), size=208, frame=(208, 160))
    assert data.shape == (208, 160) and len(data) == 1449
    square = load_data("soop", str(folder), size=189)                        # nothing is resized in either
    assert np.array_equal(data.images[:, 9:198, 1:158], square.images[:, :, 16:173])
    assert np.array_equal(data.masks[:, 9:198, 1:158], square.masks[:, :, 16:173])
    good = load_data("soop", str(folder), size=104, frame=(208, 160), min_sharpness=.045, min_contrast=1.2)
    assert len(good) == 1013 and good.shape == (104, 80)

def test_real_volumes(real_data, cache):
    "Catches real volumes refused, lost slices, empty pictures, a preparation of more than 2 s a volume, a second opening that reads them."
    for name, frame, counts in (("brats2015", (208, 160), (6, 72, 288)), ("lgg", (256, 197), (40, 958, 515))):
        folder = next(iter(real_data.glob(f"**/{name}")), None)
        if folder is None: pytest.skip(f"{name} is not in MEDGAN_DATA")
        started = time.process_time()
        data = load_data(name, str(real_data), size=104, frame=frame)
        first = time.process_time() - started
        started = time.process_time()
        data = load_data(name, str(real_data), size=104, frame=frame)
        second = time.process_time() - started
        found = data.table.dx.value_counts()
        assert (data.table.group.nunique(), found.healthy, found.pathological) == counts and data.shape == (104, 80)
        assert np.array_equal(data.masks.any(axis=(1, 2)), data.table.is_pathological)
        lesion = data.table.is_pathological.to_numpy()
        inside = [image[mask].mean() > image[image > 25].mean() for image, mask in zip(data.images[lesion, ..., 0], data.masks[lesion])]
        assert np.mean(inside) > .9                                          # bright on FLAIR: masks lie on their lesions
        print(f"{name}: {first/counts[0]:.2f} s a volume, opened again in {second:.2f} s")
        assert first/counts[0] < 2 and second < 1
        parts = data.split(seed=2)                                           # by seed 0 all six volumes of BraTS fall into one part
        groups = [set(part.table.group) for part in parts.values()]
        assert len(set.union(*groups)) == sum(map(len, groups)) == counts[0]
