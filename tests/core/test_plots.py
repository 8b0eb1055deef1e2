"What a notebook shows is what was generated: each pixel found again in the decoded picture, and words beside them."
import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medgan.core import plots
from medgan.core.plots import Jpeg, Png, as_png, as_uint8, plot_stats, progress_bar, show_grid, tile

CODING = 30     # the largest error that JPEG at this quality makes on the images below, of 255

def decoded(picture):
    "Pixels (H,W,3) of what a notebook shows."
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)

def places(sheet, image, zoom=1):
    "Where an enlarged image stands on a sheet: all (top, left) at which no pixel differs by more than the coding's error."
    wanted = image.repeat(zoom, 0).repeat(zoom, 1).astype(int)
    h, w, _ = wanted.shape
    corners = (abs(sheet[:sheet.shape[0] - h + 1, :sheet.shape[1] - w + 1] - wanted[0, 0]) <= CODING).all(-1)
    return [(y, x) for y, x in np.argwhere(corners) if abs(sheet[y:y + h, x:x + w] - wanted).max() <= CODING]

def photographs(n, side, seed=0, channels=3):
    "Smooth images with grain, no two alike; as JPEG much smaller than as PNG."
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (n, max(2, side//12), max(2, side//12), 3), dtype=np.uint8)
    smooth = np.stack([Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC) for c in coarse]).astype(float)
    return (smooth + rng.normal(0, 4, (n, side, side, 1))).clip(0, 255).astype(np.uint8)[..., :channels]

@pytest.mark.parametrize("n, side, n_cols, zoom, options", [
    (8, 64, 4, 1, {}),
    (7, 40, 4, 1, dict(titles=[f"image {i}" for i in range(7)], row_labels=["one", "two"])),       # the last row is shorter
    (6, 32, 3, 2, dict(titles=["a", "b b b", "melanocytic"], caption="A caption. " * 30)),
    (9, 20, 3, 3, dict(row_labels=["x", "a much longer label than the row is high", ""])),
    (3, 64, 8, 1, dict(titles=["pathological-and-very-long", "b", "c"])),
    (5, 8, 5, 1, dict(row_labels=["rather small"])),
])
def test_every_pixel_is_there_once_and_in_order(n, side, n_cols, zoom, options):
    "Catches resampling, columns for rows, a swapped channel, a shifted row, and a word that lies on an image."
    images = photographs(n, side)
    sheet = decoded(show_grid(images, n_cols=n_cols, zoom=zoom, **options))
    found = [places(sheet, image, zoom) for image in images]
    assert [len(f) for f in found] == [1]*n
    corners = [f[0] for f in found]
    assert corners == sorted(corners), "row by row"
    rows = sorted({y for y, _ in corners})
    assert [rows.index(y) for y, _ in corners] == [i//n_cols for i in range(n)]
    assert all(x == corners[i % n_cols][1] for i, (_, x) in enumerate(corners)), "one column stands under another"

@pytest.mark.parametrize("given, zoom", [(32, 2), (64, 1)])
def test_zoom_is_a_whole_number(given, zoom):
    "Catches an enlargement that fits the width but not the pixels."
    images = photographs(32, given)
    sheet = decoded(show_grid(images, row_labels=["a", "b", "c", "d"]))
    assert sheet.shape[1] <= 720
    assert all(len(places(sheet, image, zoom)) == 1 for image in images)

@pytest.mark.parametrize("a, b", [((0, 0, 0), (255, 255, 255)), ((255, 0, 0), (0, 255, 0)),
                                  ((255, 255, 0), (0, 0, 255)), ((255, 0, 0), (0, 0, 255))])
def test_checkerboard_survives(a, b):
    "Catches colour at half resolution (4:2:0: errors above 150) and a quality that is too low."
    board = np.where(np.indices((64, 64)).sum(0)[..., None] % 2, a, b).astype(np.uint8)
    grid = show_grid(np.concatenate([board[None], photographs(15, 64)]), row_labels=["a board", "b"])
    assert isinstance(grid, Jpeg)
    assert len(places(decoded(grid), board)) == 1

def test_budget():
    "Catches a grid that is stored as PNG, or at a quality for which twelve of them do not fit into a notebook."
    grid = show_grid(photographs(32, 64))
    assert grid.data[:2] == b"\xff\xd8" and len(grid.data) < 45*1024

def test_flat_colours_are_exact():
    "Catches JPEG where PNG is smaller and says it exactly."
    masks = np.zeros((4, 32, 32), bool)
    masks[:, 8:20, 4:9] = True
    grid = show_grid(masks, n_cols=2, zoom=1)
    assert isinstance(grid, Png) and grid._repr_png_() is grid.data
    assert (decoded(grid)[8:40, 8:40] == 255*masks[0][..., None]).all()

@pytest.mark.parametrize("kind", ["float", "uint8", "uint8 without channels", "torch"])
def test_one_channel(kind):
    "Catches grey images whose range is taken for [-1,1], and a grey JPEG that comes out coloured."
    grey = photographs(4, 48, channels=1)
    given = {"float": grey.transpose(0, 3, 1, 2)/np.float32(255), "uint8": grey, "uint8 without channels": grey[..., 0],
             "torch": torch.tensor(grey.transpose(0, 3, 1, 2)/255)}[kind]
    grid = show_grid(given, n_cols=2, zoom=1)
    assert all(len(places(decoded(grid), image.repeat(3, -1))) == 1 for image in grey)
    assert Image.open(io.BytesIO(grid.data)).mode == "L"

def test_words_are_written():
    "Catches a title, a label or a caption that is not drawn: each darkens white paper."
    white = np.full((4, 64, 64, 3), 255, np.uint8)
    for words in (dict(titles=["W"]*4), dict(row_labels=["W", "W"]), dict(caption="W")):
        assert (decoded(show_grid(white, n_cols=2, **words)) < 60).any()
    assert (decoded(show_grid(white, n_cols=2)) == 255).all()

def test_each_row_has_its_own_label():
    "Catches the first label before every row."
    white = np.full((4, 64, 64, 3), 255, np.uint8)
    inked = (decoded(show_grid(white, n_cols=2, zoom=1, row_labels=["", "W"])) < 128).any(-1).any(1)
    assert inked.any() and not inked[:8 + 72].any()

def test_titles_above_columns_or_images():
    "Catches a title a column that is repeated in each row, and one an image that is not."
    white = np.full((6, 64, 64, 3), 255, np.uint8)
    inked = lambda n: (decoded(show_grid(white, n_cols=3, zoom=1, titles=["W"]*n)) < 128).any(-1).any(1)
    assert [np.diff(inked(n).astype(int)).clip(0).sum() for n in (3, 6)] == [1, 2]

def test_strip_of_colours():
    "Catches 65 colours on a sheet wider than a page, or merged into each other."
    colours = np.array([[3*i, 255 - 3*i, i] for i in range(65)], np.uint8)
    sheet = decoded(show_grid(colours[:, None, None].repeat(4, 1).repeat(4, 2), n_cols=65))
    assert sheet.shape[1] <= 720
    assert [len(places(sheet, np.full((8, 8, 3), c, np.uint8))) >= 1 for c in colours] == [True]*65

@pytest.mark.parametrize("call, message", [
    (lambda x: show_grid(x, n_cols=2, titles=["a"]), "titles has 1 texts: must be 4 (one an image) or 2 (one a column)"),
    (lambda x: show_grid(x, n_cols=2, row_labels=["a", "b", "c"]), "row_labels has 3 texts: must be 2 (one a row)"),
    (lambda x: show_grid(x, zoom=-1), "zoom=-1: must be a whole number from 0 to 64"),
    (lambda x: show_grid(x, n_cols=0), "n_cols=0: must be a whole number from 1"),
    (lambda x: show_grid(x[:0]), "no images"),
    (lambda x: as_uint8(x.astype(np.int64)), "images are uint8"),
    (lambda x: as_uint8(x.transpose(0, 3, 1, 2)), "images are uint8"),
    (lambda x: as_uint8(x/np.float32(255)), "float images are (N,C,H,W)"),
    (lambda x: plot_stats(pd.DataFrame(dict(epoch=[1])), ["loss"]), "no column ['loss']"),
])
def test_bad_input(call, message):
    "Catches words that are dropped in silence, and images whose axes stand in another order."
    with pytest.raises(ValueError) as error: call(photographs(4, 16))
    assert message in str(error.value)

@pytest.mark.parametrize("n, seed", [(1, 0), (40, 1)])
def test_noise_can_be_stored(n, seed):
    "Catches an encoder whose buffer is too small for what cannot be compressed."
    images = np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    assert decoded(show_grid(images)).shape[2] == 3

def test_save_keeps_its_word(tmp_path):
    "Catches a file called .jpg that is a PNG, bytes that are coded twice, and colour at half resolution on the way."
    board = np.where(np.indices((64, 64)).sum(0)[..., None] % 2, (255, 0, 0), (0, 255, 0)).astype(np.uint8)
    for images in (board[None], photographs(8, 64)):
        grid = show_grid(images, zoom=1)
        for suffix, form in ((".jpg", "JPEG"), (".jpeg", "JPEG"), (".png", "PNG")):
            path = tmp_path/f"grid{suffix}"
            grid.save(path)
            assert Image.open(path).format == form
            assert len(places(np.asarray(Image.open(path).convert("RGB")).astype(int), images[0])) == 1
    grid.save(str(tmp_path/"same.jpg"))
    assert (tmp_path/"same.jpg").read_bytes() == grid.data == grid._repr_jpeg_()

def test_tile_has_no_margins():
    "Catches a sample grid whose images stand apart or in columns."
    images = photographs(5, 16)
    sheet = tile(images, n_cols=3)
    assert sheet.shape == (32, 48, 3)
    for i, image in enumerate(images): assert (sheet[16*(i//3):, 16*(i % 3):][:16, :16] == image).all()
    assert (sheet[16:, 32:] == 255).all()

def test_figures_are_closed():
    "Catches a figure that stays open, and one that is stored with more than 64 colours."
    figure, ax = plots.plt.subplots(figsize=(2, 1))
    ax.imshow(np.random.default_rng(0).random((16, 16, 3)))
    colours = Image.open(io.BytesIO(as_png(figure).data)).convert("RGB").getcolors()
    assert len(colours) <= 64 and not plots.plt.fignum_exists(figure.number)

def test_progress_in_a_terminal(capsys):
    "Catches a bar that writes nothing where there is no notebook, and one that shows although it is disabled."
    for _ in progress_bar(range(3), desc="steps"): pass
    assert "steps" in capsys.readouterr().err
    for _ in progress_bar(range(3), disable=True): pass
    assert capsys.readouterr().err == ""
