"Judging pseudo-healthy images: similarity, healthiness, errors, detection, transplants."
import numpy as np
import pandas as pd
import pytest
import torch

from medgan.data.images import ImageData
from medgan.data.registry import DataError
from medgan.evaluate.pseudo_healthy import (
    best_threshold,
    detection_scores,
    foreground,
    healthiness,
    identity,
    ms_ssim,
    region_errors,
    transplant,
)

def picture(n=2, h=104, w=80, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(n, 1, 13, 10, generator=g), (h, w), mode="bicubic").clamp(0, 1)

def test_similarity_is_symmetric_and_falls():
    "Catches a map that is not symmetric, and a score that does not fall with the noise."
    x = picture()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    a, b = ((x + s*noise).clamp(0, 1) for s in (.05, .2))
    assert torch.allclose(ms_ssim(x, a), ms_ssim(a, x)) and (ms_ssim(x, b) < ms_ssim(x, a)).all() and (ms_ssim(x, a) < 1).all()

def test_region_counts_only_itself():
    "Catches a region that is shifted against the maps, or averaged with its outside."
    x = picture(1, 208, 160)
    region = torch.zeros_like(x, dtype=torch.bool)
    region[..., 90:118, 70:90] = True
    near = torch.nn.functional.max_pool2d(region.float(), 113, 1, 56) > 0                       # the coarsest window reaches 48 px
    far = torch.where(near, x, 1 - x)
    assert ms_ssim(far, x, region).item() == pytest.approx(1, abs=1e-6) and ms_ssim(far, x).item() < .7
    assert ms_ssim(x, x, region & False).isnan().all()

@pytest.mark.parametrize("a, b", [((1, 1, 40, 40), (1, 1, 40, 41)), ((1, 3, 40, 40), (1, 3, 40, 40)), ((40, 40), (40, 40))])
def test_similarity_refuses(a, b):
    "Catches images that do not fit together, and colour."
    with pytest.raises(ValueError, match="images are"): ms_ssim(torch.rand(a), torch.rand(b))

def test_identity_ignores_the_lesion():
    "Catches a mask that is inverted."
    x = picture(1) + .1
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[..., 30:50, 30:50] = True
    inside, outside = (torch.where(m, torch.zeros_like(x), x) for m in (mask, ~mask))
    assert identity(inside, x, mask).iloc[0].tolist() == pytest.approx([1, 1])
    assert identity(outside, x, mask).image[0] < .5

def test_healthiness_of_one_volume():
    "Catches a denominator of the volume's own, which the paper's is not."
    h = healthiness([10, 0], [10, 30], ["a", "b"])
    assert h["a"] == .5 and h["b"] == 1

def test_errors_by_hand():
    "Catches a mean over the image in place of the region, and decibels of the wrong sign."
    a, region = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    region[..., 6:10, 6:10] = True
    row = region_errors(a + region*.2, a, region).iloc[0]
    assert (row.mae, row.psnr) == (pytest.approx(.2, abs=1e-6), pytest.approx(-10*np.log10(.04), abs=1e-4))

def test_threshold_is_the_best_there_is():
    "Catches a threshold that is off by one pixel: all cuts tried by hand do no better."
    rng = np.random.default_rng(0)
    masks = rng.random((3, 20, 20)) < .2
    heat = masks*.3 + rng.random(masks.shape)
    inside = rng.random(masks.shape) < .8
    def dice(cut): return 2*((heat > cut) & masks & inside).sum()/(((heat > cut) & inside).sum() + (masks & inside).sum())
    assert dice(best_threshold(heat, masks, inside, 2000)) == pytest.approx(max(dice(c) for c in heat.ravel()), abs=1e-12)

def test_detection_by_volume():
    "Catches volumes that are pooled, and pixels outside that count."
    masks = np.zeros((2, 4, 4), bool)
    masks[:, 0, 0] = True
    inside = np.ones_like(masks)
    inside[:, 3] = False
    heat = np.zeros(masks.shape)
    heat[0, 0, 0] = 1
    heat[:, 3] = 9
    heat[1, 1, 1] = 1
    scores = detection_scores(heat, masks, inside, ["a", "b"])
    assert scores.auroc["a"] == 1 and scores.auroc["b"] < .5 and scores.share["a"] == pytest.approx(1/12)
    with pytest.raises(ValueError, match="no volume"): detection_scores(heat, masks & False, inside, ["a", "b"])

def test_foreground_keeps_the_largest():
    "Catches ventricles that count as background, and a speck that counts as brain."
    image = np.zeros((1, 30, 30))
    image[0, 5:25, 5:25] = .5
    image[0, 12:16, 12:16] = 0
    image[0, 0, 0] = 1
    assert foreground(image).sum() == 400

def slices(n, lesion, seed):
    "Discs of different size, one a subject, with or without a bright spot."
    y, x = np.mgrid[:52, :40]
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for i in range(n):
        head = ((y - 26)/(16 + i))**2 + ((x - 20)/(12 + i/2))**2 < 1
        mask = (((y - 20)/4)**2 + ((x - 16)/3)**2 < 1) if lesion else np.zeros_like(head)
        images.append(np.where(mask, 230, head*(90 + 10*i)).astype(np.uint8))
        masks.append(mask)
    classes = ("healthy", "pathological")
    table = pd.DataFrame(dict(id=[f"{seed}{i}" for i in range(n)], dx=classes[lesion], group=[f"s{i}" for i in range(n)],
                              source="test", label=int(lesion)))
    return ImageData("test", np.stack(images)[..., None], np.stack(masks), table, classes, str(seed))

def test_transplant():
    "Catches a lesion set into its own subject, a truth that is not the recipient, and changes far from the lesion."
    sick, sound = slices(5, True, 1), slices(5, False, 2)
    made, truth = transplant(sick, sound, 12, seed=3)
    donor = made.table.donor.map(dict(zip(sick.table.id, sick.table.group)))
    assert (donor != made.table.group).all() and len(made) == 12
    assert (truth == sound.images[[list(sound.table.id).index(r) for r in made.table.recipient]]).all()
    changed = (made.images != truth)[..., 0]
    near = torch.nn.functional.max_pool2d(torch.tensor(made.masks, dtype=torch.float), 9, 1, 4).numpy() > 0
    brighter = made.images[..., 0][made.masks].astype(int) - truth[..., 0][made.masks] > 20
    assert not (changed & ~near).any() and brighter.mean() > .95
    assert (made.masks.sum((1, 2)) > 10).all()

def test_transplant_refuses():
    "Catches the only subject's lesion set into himself, and donors without a lesion."
    sick, sound = slices(1, True, 1), slices(1, False, 2)
    with pytest.raises(DataError, match="only 0 of 2 transplants"): transplant(sick, sound, 2)
    with pytest.raises(DataError, match="no lesion covers"): transplant(sound, sound, 2)
