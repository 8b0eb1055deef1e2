"Every way to write a picture: the right pixels, upright, with the right number of bits, or a refusal that names the file."
import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image
from small_sets import image_folder, refused, write_zip

from medgan.data import sources
from medgan.data.images import load_data
from medgan.data.registry import DataError
from medgan.data.sources import DrawnSource, PhotoSource

RAMP = np.arange(16, dtype=np.uint8)[None].repeat(16, 0)*17               # 0 to 255

def file(image, kind="PNG", **options):
    "An encoded image."
    if isinstance(image, np.ndarray): image = Image.fromarray(image)
    image.save(data := io.BytesIO(), kind, **options)
    return data.getvalue()

def png(colour, depth, rows, width=16, height=16):
    "A PNG written by hand: Pillow writes no 16 bits in colour."
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

def deep(*channels): # (16,16) each, of 16 bits
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack(channels, -1))

def tiff(array, form):
    "A TIFF of one grey channel of any type: form 1 whole, 2 with sign, 3 float."
    h, w = array.shape
    tags = ((256, w), (257, h), (258, 8*array.itemsize), (259, 1), (262, 1), (273, 8), (277, 1), (278, h), (279, array.nbytes), (339, form))
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag < 258 or tag in (273, 278, 279) else 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + array.nbytes) + array.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)

def opened(folder, data, size=16, name="a.png"):
    "One file as a set."
    (folder/name).write_bytes(data)
    images, _, found = PhotoSource().make("kinds", pd.DataFrame(dict(image=[str(folder/name)], mask="")), size)
    return images[0], found

wide = RAMP.astype(np.uint16)*257
half = np.where(RAMP > 127, np.uint8(255), np.uint8(0))
palette = Image.fromarray(RAMP//17, "P")
palette.putpalette([v for i in range(16) for v in (17*i,)*3])

KINDS = dict(
    grey8=(file(RAMP), RAMP, "PNG, 8 bits, grey"), rgb8=(file(RAMP[..., None].repeat(3, -1)), RAMP, "PNG, 8 bits, RGB"),
    bmp=(file(RAMP, "BMP"), RAMP, "BMP, 8 bits, grey"), tiff8=(file(RAMP, "TIFF"), RAMP, "TIFF, 8 bits, grey"),
    webp=(file(RAMP[..., None].repeat(3, -1), "WEBP", lossless=True), RAMP, "WEBP, 8 bits, RGB"),
    jpeg=(file(RAMP, "JPEG", quality=100), RAMP, "JPEG, 8 bits, grey"), bits1=(file(half > 0), half, "PNG, 1 bit, grey"),
    palette=(file(palette), RAMP, "PNG, 4 bits, palette"),
    grey2=(png(0, 2, b"".join(b"\0\x00\x55\xaa\xff" for _ in range(16))), np.repeat(np.uint8([0, 85, 170, 255]), 4)[None].repeat(16, 0),
           "PNG, 2 bits, grey"),
    grey16=(file(wide), RAMP, "PNG, 16 bits, grey; 65535 is shown as 255"),
    tiff16=(file(wide, "TIFF"), RAMP, "TIFF, 16 bits, grey; 65535 is shown as 255"),
    int16=(tiff(wide.astype(np.int32), 2), RAMP, "TIFF, 32 bits, grey; 65535 is shown as 255"),
    rgb16=(png(2, 16, deep(wide, wide, wide)), RAMP, "PNG, 16 bits, RGB; 65535 is shown as 255"),
    alpha16=(png(6, 16, deep(wide, wide, wide, wide*0 + 65535)), RAMP, "PNG, 16 bits, RGBA; 65535 is shown as 255"),
    float32=(file((RAMP/255).astype(np.float32), "TIFF"), RAMP, "TIFF, 32 bits float, grey; 1 is shown as 255"),
    cmyk=(file(Image.merge("CMYK", [Image.fromarray(255 - RAMP)]*3 + [Image.new("L", (16, 16))]), "TIFF"), RAMP,
          "TIFF, 8 bits, CMYK; red is shown as (255 - C)(255 - K)/255"),
    lab=(file(Image.new("LAB", (16, 16), (255, 128, 128)), "TIFF"), RAMP*0 + 255, "TIFF, 8 bits, LAB"),
    opaque=(file(np.stack([RAMP]*3 + [RAMP*0 + 255], -1)), RAMP, "PNG, 8 bits, RGBA"),
    clear=(file(np.stack([RAMP, RAMP*0, RAMP*0, RAMP*0], -1)), RAMP*0 + 255, "PNG, 8 bits, RGBA; white is put behind"),
    clear_grey=(file(Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(half)])), np.where(half > 0, RAMP, 255),
                "PNG, 8 bits, grey and alpha; white is put behind"),
    clear_colour=(file(palette, transparency=0), np.where(RAMP > 0, RAMP, 255), "PNG, 4 bits, palette; white is put behind"))

@pytest.mark.filterwarnings("ignore:kinds")
@pytest.mark.parametrize("data, shown, kind", KINDS.values(), ids=KINDS)
def test_kinds(tmp_path, data, shown, kind):
    "Catches white or black where there are more bits, colours that come out from under transparency, and a report that is silent on it."
    image, found = opened(tmp_path, data)
    off = 2 if b"JFIF" in data else 1
    assert np.abs(image.astype(int) - shown[..., None]).max() <= off and found.kinds.tolist() == [kind]

KINDS_BAD = dict(
    bits12=(file(wide//16), "it has 16 bits, but its values end at 4095"),
    bits12_colour=(png(2, 16, deep(*[wide//16]*3)), "it has 16 bits, but its values end at 4095"),
    int32=(tiff(wide.astype(np.int32)*9, 2), "its values go from 0 to 589815; 16 bits are 0 to 65535"),
    minus=(tiff(wide.astype(np.int32) - 9, 2), "its values go from -9 to"),
    float255=(tiff(RAMP.astype(np.float32), 3), "its floats go from 0 to 255"),
    nan=(tiff(np.where(RAMP > 99, np.nan, .5).astype(np.float32), 3), "its floats go from nan to nan"),
    float64=(tiff(RAMP/255, 3), "are no image of a kind that is read"),
    pages=(file(RAMP, "TIFF", save_all=True, append_images=[Image.fromarray(RAMP)]), "it holds 2 pictures; one a file is needed"),
    moving=(file(RAMP, "PNG", save_all=True, append_images=[Image.fromarray(255 - RAMP)]), "it holds 2 pictures"),
    many_pixels=(png(2, 8, b"", 30000, 30000), "900000000 pixels"), more_pixels=(png(2, 8, b"", 9000, 9000), "it has 9000 x 9000 px"),
    html=(b"<html>404</html>", "its 16 bytes are no image of a kind that is read"), nothing=(b"", "its 0 bytes are no image"),
    cut=(file(RAMP, "JPEG")[:200], "Truncated File Read"))

@pytest.mark.parametrize("data, message", KINDS_BAD.values(), ids=KINDS_BAD)
def test_kinds_bad(tmp_path, data, message):
    "Catches a picture that is guessed at, and a bomb that is unpacked, or named by nobody."
    tracemalloc.start()
    with pytest.raises(DataError) as caught: opened(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"kinds: 1 of 1 images cannot be read: {tmp_path/'a.png'} (" in str(caught.value) and message in str(caught.value)
    assert peak < 2**23

@pytest.mark.parametrize("way", range(1, 9))
def test_ways_up(tmp_path, way):
    "Catches one of the eight ways to hold a camera: turned to the wrong side, or not mirrored."
    upright = np.zeros((24, 16), np.uint8)
    upright[:6, :5] = 255                                                     # the sky's left corner
    back = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose, 6: np.rot90, 7: lambda a: np.rot90(a, 2).T,
            8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = way
    image, found = opened(tmp_path, file(back.get(way, np.asarray)(upright), "JPEG", exif=exif, quality=100))
    assert found.sizes.tolist() == [[16, 24]] and image[0, 0, 0] > 200 and image[0, 12, 0] < 60 and image[12, 0, 0] < 60
    assert found.kinds[0] == "JPEG, 8 bits, grey" + "; turned as the camera was held"*(way > 1)

@pytest.mark.filterwarnings("ignore:.*names no lesion", "ignore:.*16 bits")
def test_how_a_set_is_written(tmp_path, cache):
    "Catches a report of the first opening alone, and one that speaks of another image after the set is sorted or cut."
    root = image_folder(tmp_path/"set", n=2)
    (root/"benign"/"0a.png").write_bytes(file(wide))
    for data in (load_data("folder", str(root), size=16) for _ in range(2)):
        written = dict(zip(data.table.id, data.table.written_as))
        assert written.pop("benign/0a") == "PNG, 16 bits, grey; 65535 is shown as 255" and set(written.values()) == {"JPEG, 8 bits, RGB"}
        assert set(data.select(["malignant"]).table.written_as) == {"JPEG, 8 bits, RGB"}

def test_zip_bomb(tmp_path, cache, monkeypatch):
    "Catches a member of gigabytes that is unpacked into memory: the archive's list tells its size."
    write_zip(tmp_path/"a.zip", {"x.png": bytes(10**5)})
    monkeypatch.setattr(sources, "MOST_BYTES", 10**4)
    table = pd.DataFrame(dict(image=[f"{tmp_path/'a.zip'}::x.png"], mask=""))
    with pytest.raises(DataError, match=r"a.zip::x.png \(it has 100,000 bytes; at most 10,000 are allowed"):
        PhotoSource().make("kinds", table, 16)

def test_zip_that_lies(tmp_path):
    "Catches a member whose list says little and that unpacks to more."
    with zipfile.ZipFile(tmp_path/"a.zip", "w", zipfile.ZIP_DEFLATED) as archive: archive.writestr("x.png", bytes(10**6))
    data = (tmp_path/"a.zip").read_bytes()
    (tmp_path/"a.zip").write_bytes(data.replace(struct.pack("<I", 10**6), struct.pack("<I", 50)))
    table = pd.DataFrame(dict(image=[f"{tmp_path/'a.zip'}::x.png"], mask=""))
    with pytest.raises(DataError, match=r"a.zip::x.png \("): PhotoSource().make("kinds", table, 16)

@pytest.mark.parametrize("at, value, message", [
    ((8, 10), 9, "pack it again with deflate"), ((6, 8), 1, "it is encrypted: unpack the archive")], ids=["deflate64", "encrypted"])
def test_zips_of_other_kinds(tmp_path, at, value, message):
    "Catches an error of zipfile that does not say what to do."
    write_zip(tmp_path/"a.zip", {"x.png": file(RAMP)})
    data = bytearray((tmp_path/"a.zip").read_bytes())
    for magic, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), at): data[data.find(magic) + offset] = value
    (tmp_path/"a.zip").write_bytes(data)
    table = pd.DataFrame(dict(image=[f"{tmp_path/'a.zip'}::x.png"], mask=""))
    with pytest.raises(DataError, match=rf"a.zip::x.png \(.*{message}"): PhotoSource().make("kinds", table, 16)

def test_masks_of_floats(tmp_path):
    "Catches .9998 and 1 taken for two classes, and NaN that makes a mask empty."
    (tmp_path/"a.png").write_bytes(file(RAMP))
    table = pd.DataFrame(dict(image=[str(tmp_path/"a.png")], mask=str(tmp_path/"m.tif")))
    mask = np.where(half > 0, np.where(RAMP > 200, .9998, 1), .0003).astype(np.float32)
    (tmp_path/"m.tif").write_bytes(tiff(mask, 3))
    assert np.array_equal(PhotoSource().make("kinds", table, 16)[1][0], half > 0)
    (tmp_path/"m.tif").write_bytes(tiff(np.where(half > 0, np.nan, mask).astype(np.float32), 3))
    with pytest.raises(DataError, match="m.tif .*holds NaN or infinite ones"): PhotoSource().make("kinds", table, 16)

def test_drawings_of_any_number(cache):
    "Catches a set that is drawn until the memory is full."
    with refused(cache, "phantom: 20,000 drawings of 1024 px take 59 GB; at most 16 are drawn"):
        DrawnSource(lambda *_: pytest.fail("drawn")).make("phantom", pd.DataFrame(dict(id=range(20_000))), 1024)
