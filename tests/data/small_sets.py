"Small data sets of every kind, written into a folder and loaded, for the tests of this folder."
import hashlib
import io
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medgan.data.images import load_data
from medgan.data.registry import DataError

def left(cache):
    "What lies in the cache."
    return sorted(p.name for p in cache.iterdir()) if cache.exists() else []

@contextmanager
def refused(cache, *parts):
    "The block raises a `DataError` of one line that holds all parts, and leaves nothing in the cache."
    with pytest.raises(DataError) as caught: yield
    message = str(caught.value)
    assert "\n" not in message and not [p for p in parts if str(p) not in message], message
    assert left(cache) == []

HAM_CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")

def jpeg(rng, width=40, height=30):
    "The bytes of a small colourful JPEG."
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(data := io.BytesIO(), "JPEG", quality=90)
    return data.getvalue()

def write_zip(path, files):
    "A zip file of name -> bytes."
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items(): archive.writestr(name, data)

CALLER = Path(__file__)      # whose line a warning shows where these load a set

def ham(folder, **options): return load_data("ham10000", str(folder), size=options.pop("size", 16), **options)

def unzip(folder, pattern="*.zip", nested=True):
    "Archives become folders of the same name."
    for path in sorted(folder.glob(pattern)):
        with zipfile.ZipFile(path) as archive: archive.extractall(folder/path.stem)
        path.unlink()

def edit_zip(path, change):
    "`change` gets name -> bytes and alters it."
    with zipfile.ZipFile(path) as archive: files = {n: archive.read(n) for n in archive.namelist()}
    change(files)
    write_zip(path, files)

def edit_metadata(folder, change):
    table = pd.read_csv(folder/"HAM10000_metadata")
    change(table).to_csv(folder/"HAM10000_metadata", index=False)

def image_folder(root, names=("benign", "malignant"), n=4):
    rng = np.random.default_rng(2)
    for name in names:
        (root/name).mkdir(parents=True)
        for i in range(n): (root/name/f"{i}.jpg").write_bytes(jpeg(rng))
    return root

def labelled(folder, ids=None, group=None, dx=("NV", "MEL", "NV", "BKL"), label=("benign", "melanoma", "benign", "benign"), **columns):
    "images/ and labels.csv, as parts of published sets have them; the table."
    rng, ids = np.random.default_rng(3), ids or [f"img{i}" for i in range(len(dx))]
    (folder/"images").mkdir(parents=True)
    for name in ids: (folder/"images"/f"{name}.jpg").write_bytes(jpeg(rng))
    table = pd.DataFrame(dict(image_id=ids, label=label, dx=dx, group=group or ids, **columns))
    table.to_csv(folder/"labels.csv", index=False)
    return table

def toy_slices(n=6, height=30, width=20):
    "Arrays of an archive: three subjects, a lesion in every other slice."
    rng = np.random.default_rng(4)
    mask = np.zeros((n, height, width), bool)
    mask[1::2, 8:14, 5:12] = True
    return dict(flair=rng.integers(0, 256, (n, height, width), dtype=np.uint8), mask=mask, subject=np.array([f"s{i//2}" for i in range(n)]))

def slices(folder, size=30, **changed):
    "Write the toy archive with some arrays changed (None = left out), and load it."
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder/"toy.npz", **{k: v for k, v in (toy_slices() | changed).items() if v is not None})
    return load_data("slices", str(folder), size=size)

def toy_volume(shape=(20, 26, 12), seed=0):
    "RAS+ voxels, 0 in the outermost columns, and labels 1 to 4 in a box that lies left, anterior and in the upper half."
    flair, labels = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    flair[2:-2] = np.random.default_rng(seed).integers(50, 1000, (shape[0] - 4, *shape[1:]))
    labels[4:7, 15:20, 7:10] = np.random.default_rng(seed).integers(1, 5, (3, 5, 3))
    return flair, labels

def save(path, voxels, affine=np.eye(4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path

def volumes(folder, name="nifti", size=26, cases=("p1",), flair=None, labels=None, affine=np.eye(4), mask_affine=None, **options):
    "Write toy cases, each with voxels of its own, some things changed, and load them."
    for seed, case in enumerate(cases):
        save(folder/case/f"{case}_flair.nii.gz", toy_volume(seed=seed)[0] if flair is None else flair, affine)
        save(folder/case/f"{case}_seg.nii.gz", toy_volume()[1] if labels is None else labels,
             affine if mask_affine is None else mask_affine)
    return load_data(name, str(folder), size=size, **options)

def pictures(n=5, size=12, channels=3): return np.random.default_rng(6).integers(0, 256, (n, size, size, channels), dtype=np.uint8)

def floats(images):
    "uint8 (N,H,W,C) as networks see them."
    images = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return images/255 if images.shape[1] == 1 else images/127.5 - 1

def boxes_csv(folder, rows, header="id,x0,y0,x1,y1"):
    (folder/"boxes.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(folder/"boxes.csv")

def frozen_key(table, size):
    "The key of a cache of skin images since the originals' sizes are kept: whoever changes it has all sets prepared anew."
    digest = hashlib.sha256(f"{size} centre square, bicubic, draft; masks box >= 128; 5".encode())
    digest.update(table[["id", "dx", "group", "image", "mask"]].to_csv(index=False).encode())
    for path in sorted({locator.partition("::")[0] for locator in (*table.image, *table["mask"]) if locator}):
        digest.update(f"{path} {os.stat(path).st_size} {os.stat(path).st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
