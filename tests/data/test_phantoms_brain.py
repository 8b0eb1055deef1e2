"Brain phantoms: the table keeps its promises at its limits, a slice and its twin differ by the lesion alone, at any size."
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_dilation

from medgan.data.phantoms_brain import BRAIN_FRAME, brain_phantom_table, draw_brain

TABLE = brain_phantom_table(10, 5, seed=3)

# ---- the table

@pytest.mark.parametrize("name, value", [("n_subjects", 0), ("n_subjects", 10001), ("n_subjects", True),
                                         ("n_slices", 61), ("n_slices", "5"), ("n_slices", 2.0),
                                         ("seed", -1), ("seed", None), ("lesion", "none"), ("lesion", None)])
def test_bad_arguments(name, value):
    "Catches a value that ends in numpy's error, or in a table of another length than asked for."
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be"): brain_phantom_table(**{name: value})

def test_rows():
    "Catches ids that come twice, levels that leave the volume, and a single slice at its lower end."
    assert TABLE.id.is_unique and TABLE.groupby("group").size().tolist() == [5]*10
    assert (TABLE.level.to_numpy().reshape(10, 5) == [-1, -.5, 0, .5, 1]).all()
    assert brain_phantom_table(3, 1).level.tolist() == [0, 0, 0] and brain_phantom_table(1, 60).level.diff()[1:].std() < 1e-9

def test_seed():
    "Catches a seed that is not used, and one of numpy's own that changes the outcome."
    np.random.seed(1)
    again = brain_phantom_table(10, 5, seed=3)
    pd.testing.assert_frame_equal(again, TABLE)
    assert not np.isin(brain_phantom_table(10, 5, seed=4).seed, TABLE.seed).any() and TABLE.seed.nunique() == 10

def test_kinds():
    "Catches halves that are only so on average, and a deal that always gives the first of two a tumour."
    kinds = brain_phantom_table(200, 1, seed=0).kind
    assert (kinds == "tumour").sum() == 100 and .3 < (kinds[::2] == "tumour").mean() < .7
    assert set(brain_phantom_table(9, 1, "stroke").kind) == {"stroke"}

@pytest.mark.parametrize("n_slices", [5, 10])
def test_every_subject_is_ill_somewhere_and_healthy_elsewhere(n_slices):
    "Catches lesions between two slices, in a ventricle or beside the brain, and lesions that fill the volume."
    table = brain_phantom_table(40, n_slices, seed=11)
    ill = pd.Series(draw_brain(table, 52)[1].any((1, 2))).groupby(table.group)
    assert ill.any().all() and not ill.all().any()

# ---- the pictures

@pytest.mark.parametrize("size", [16, 33, 52, 104, 107, 208, 300])
def test_twins_at_any_size(size):
    "Catches a grid that does not fit its picture, traces of a lesion far from its mask, and a mask that is not drawn."
    (ill, masks), (healthy, none) = (draw_brain(TABLE[2::5], size, lesions=lesions) for lesions in (True, False))
    assert ill.shape == (10, size, round(size*160/208), 1) and masks.shape == ill.shape[:3]
    assert ill.dtype == np.uint8 and masks.dtype == bool
    reach = 2 + round(2*size/208) + int(np.ceil(3*.9*size/208))                      # soft edge, then blur
    differ = (ill != healthy)[..., 0]
    assert not none.any() and differ[masks].mean() > .6
    for d, m in zip(differ, masks): assert not (d & ~binary_dilation(m, iterations=reach)).any() if m.any() else not d.any()
    assert (masks.sum((1, 2))[masks.any((1, 2))]*(BRAIN_FRAME[0]/size)**2 >= 12).all()

def test_sizes_agree():
    "Catches folds, textures and edges that are drawn on the picture's own pixels, and a frame that shifts by half a pixel."
    rows = TABLE[1::3].assign(noise=0)
    large, masks = draw_brain(rows, 208)
    for size in (52, 104):
        k = 208//size
        small, small_masks = draw_brain(rows, size)
        means = large.reshape(len(rows), size, k, 160//k, k).mean((2, 4))
        assert np.abs(means - small[..., 0]).mean() < .008*255
        assert np.abs(masks.mean((1, 2)) - small_masks.mean((1, 2))).max() < .003
        assert np.abs(means[:, 1:] - small[:, :-1, :, 0]).mean() > 3*np.abs(means - small[..., 0]).mean()

def test_row_alone_decides():
    "Catches state that threads share, and an index that is taken for a position."
    images, masks = draw_brain(TABLE, 40)
    order = np.random.default_rng(0).permutation(len(TABLE))
    mixed, mixed_masks = draw_brain(TABLE.iloc[order], 40, n_threads=3)
    assert (mixed == images[order]).all() and (mixed_masks == masks[order]).all()
    assert (draw_brain(TABLE[7:8], 40, n_threads=1)[0][0] == images[7]).all()
    empty, no_masks = draw_brain(TABLE[:0], 40)
    assert empty.shape == (0, 40, 31, 1) and no_masks.shape == (0, 40, 31)

def test_noise_differs_between_slices_and_not_between_twins():
    "Catches one noise for the whole volume, which a network could learn, and noise that goes on where the lesion's random numbers ended."
    same_anatomy = TABLE[:2].assign(level=[.5, .5 + 1e-4], noise=.03, lesion_level=-.4, radius=11)
    a, b = draw_brain(same_anatomy, 104)[0].astype(float)
    assert (a - b).std() > 1 and (draw_brain(same_anatomy, 104)[0] == draw_brain(same_anatomy, 104, lesions=False)[0]).all()

def test_brain_lies_in_the_frame():
    "Catches heads that the frame cuts off, and a background that is not exactly 0."
    images = draw_brain(brain_phantom_table(80, 3, seed=2), 52)[0]
    cut = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    assert np.mean([c.any((1, 2)) for c in cut]) < .01
    assert .3 < (images > 0).mean() < .6 and (images == 0).mean() > .3

def test_lesions_stay_in_their_tissue():
    "Catches masks over ventricles and sulci, and lesions that cross the midline."
    rows = TABLE[2::5].assign(noise=0., bias=0., blur=0., csf=0., contrast=.4, lesion_level=0., tilt=0., shift_x=0.)
    rows = pd.concat([rows, rows.assign(lesion_x=np.sign(rows.lesion_x)*6)])
    healthy, (_, masks) = draw_brain(rows, lesions=False)[0][..., 0], draw_brain(rows)
    assert masks.any((1, 2)).all() and (healthy[masks] < .25*255).mean() < .01
    assert (healthy[:, 60:150, 40:120] < .25*255).mean() > .03                        # there are ventricles to avoid
    left, right = masks[:, :, :79].any((1, 2)), masks[:, :, 81:].any((1, 2))
    assert (left == (rows.lesion_x < 0)).all() and (right == (rows.lesion_x > 0)).all()

def test_least_lesion():
    "Catches specks that are drawn though no reader could see them, and specks that are drawn without a mask."
    rows = pd.concat([TABLE[2::5].assign(lesion_level=0., contrast=.4, radius=r) for r in np.linspace(1, 5, 9)])
    for size in (104, 208):
        (images, masks), healthy = draw_brain(rows, size), draw_brain(rows, size, lesions=False)[0]
        areas = masks.sum((1, 2))*(BRAIN_FRAME[0]/size)**2
        assert areas[areas > 0].min() >= 12 and areas[areas > 0].min() < 25 and (areas == 0).any()
        assert ((images != healthy).any((1, 2, 3)) == (areas > 0)).all()

def test_bright_lesions_are_brighter():
    "Catches a contrast with the wrong sign, and one that is not used."
    rows = TABLE[2::5].assign(noise=0., core=.05)
    healthy = draw_brain(rows, 104, False)[0]
    (faint, masks), (bright, _) = (draw_brain(rows.assign(contrast=contrast), 104) for contrast in (.06, .4))
    rise = [np.array([(im[m].astype(float) - h[m]).mean()/255 for im, h, m in zip(x, healthy, masks)]) for x in (faint, bright)]
    assert (rise[0] > .03).all() and (rise[1] > .2).all() and (rise[0] < .1).all()

@pytest.mark.parametrize("name, value", [("size", 15), ("size", 1025), ("size", 52.), ("level", -1.01),
                                         ("level", float("nan")), ("kind", "oedema")])
def test_bad_drawings(name, value):
    "Catches a picture of a level that no subject has, and a misspelt kind that is drawn as the other one."
    rows, options = (TABLE[:2], dict(size=value)) if name == "size" else (TABLE[:2].assign(**{name: value}), {})
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be"): draw_brain(rows, **options)
