"""Photos as people have them: other colour spaces, animations, odd names and shapes, and faults."""

import os
import struct
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest

pytest.importorskip("PIL", reason="it is in the extra torch")

from PIL import Image

from ekmfast.datasets import load_image_folder, open_image_folder

SIZE = 16
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)


def means(folder, channels=3):
    """Mean colour of each image, in bytes."""
    images = load_image_folder(folder, SIZE, channels=channels).images
    assert images.shape[1:] == (channels, SIZE, SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(
        open_image_folder(folder, SIZE, channels=channels).__getitems__(range(len(images))), images
    )
    return images.mean(axis=(2, 3)) * 255


def near(found, expected, atol=4):
    np.testing.assert_allclose(found, expected, atol=atol)


# --- colours and frames --------------------------------------------------------------------


def test_cmyk_photos_have_their_colours(tmp_path):
    """Also those of Adobe, whose JPEG files hold inverted values."""
    for name, colour in (("1", RED), ("2", BLUE), ("3", GREY)):
        image = Image.new("RGB", (20, 20), colour).convert("CMYK")
        image.save(tmp_path / f"{name}.jpg", quality=100)
        image.save(tmp_path / f"{name}.tiff")
    expected = np.repeat([RED, BLUE, GREY], 2, axis=0)
    near(means(tmp_path), expected)
    near(means(tmp_path, 1)[:, 0], expected @ [0.299, 0.587, 0.114])
    assert b"Adobe" in (tmp_path / "1.jpg").read_bytes()


def test_further_modes(tmp_path):
    """One bit, grey with transparency, luminance and chrominance, and a transparent palette."""
    Image.new("1", (20, 20), 1).save(tmp_path / "1.png")
    half = np.full((20, 20, 2), 100, np.uint8)
    half[:10, :, 1], half[10:, :, 1] = 0, 255  # above it is transparent, so white
    Image.fromarray(half).save(tmp_path / "2.png")
    Image.new("RGB", (20, 20), GREEN).convert("YCbCr").save(tmp_path / "3.jpg", quality=100)
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([*RED, *BLUE])
    palette.save(tmp_path / "4.png", transparency=0)
    palette.save(tmp_path / "5.png", transparency=1)
    expected = [(255,) * 3, ((255 + 100) / 2,) * 3, GREEN, BLUE, (255,) * 3]
    near(means(tmp_path), expected, atol=8)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_animations_and_pages_give_their_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE, GREEN)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"1.{suffix}", save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / f"1.{suffix}") as image:
        assert image.n_frames == 3
    near(means(tmp_path), [RED])


def test_progressive_photos_and_wrong_suffixes(tmp_path):
    image = Image.new("RGB", (40, 40), BLUE)
    image.save(tmp_path / "1.jpg", progressive=True, quality=95)
    image.save(tmp_path / "2.jpg", format="PNG")
    image.save(tmp_path / "3.PNG", format="JPEG", quality=95)
    near(means(tmp_path), [BLUE] * 3)


# --- names and shapes ----------------------------------------------------------------------

NAMES = ["größe \U0001f408.png", "写真.png", "a b\tc\nd.png", "-x.png", "%s{0}.png", "'\".png"]


def test_names_of_any_letters(tmp_path):
    names = [*NAMES, "e\u0301.png"]  # the last one in decomposed form
    if sys.platform.startswith("linux"):
        names.append(os.fsdecode(b"\xff\xfe.png"))  # no UTF-8
    folder = tmp_path / "kätzchen"
    folder.mkdir()
    for name in names:
        Image.new("RGB", (8, 8), RED).save(folder / name)
    data = load_image_folder(tmp_path, SIZE)
    assert sorted(path.name for path in data.paths) == sorted(names)
    assert data.class_names == ["kätzchen"]
    near(data.images.mean(axis=(2, 3)) * 255, [RED] * len(names))


def test_one_pixel_and_very_long_photos(tmp_path):
    for i, size in enumerate([(1, 1), (1, 3000), (3000, 1), (2, 5), (4000, 30)]):
        Image.new("RGB", size, GREEN).save(tmp_path / f"{i}.png")
    near(means(tmp_path), [GREEN] * 5)


# --- faults --------------------------------------------------------------------------------


def huge_png(width, height):
    """A whole PNG file whose header says that it is huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(content)) + kind + content)
        parts.append(struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(parts)


def faults():
    whole = {}
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in ("jpg", "png", "webp", "tiff", "gif", "bmp"):
        buffer = BytesIO()
        Image.fromarray(noise).save(buffer, "jpeg" if suffix == "jpg" else suffix)
        whole[suffix] = buffer.getvalue()
    cut = {f"cut.{suffix}": content[: len(content) // 2] for suffix, content in whole.items()}
    return cut | {
        "empty.jpg": b"",
        "one-byte.png": b"\x89",
        "page.png": b"<!doctype html><title>404</title>",
        "zeros.jpg": bytes(5000),
        "start.jpg": whole["jpg"][:2],
        "bomb.png": huge_png(2**15, 2**15),
        "larger-than-memory.png": huge_png(2**31 - 1, 2**31 - 1),
        "no-pixels.png": huge_png(0, 5),
    }


@pytest.mark.parametrize("name", faults())
def test_a_fault_is_named_or_left_out(tmp_path, name):
    Image.new("RGB", (8, 8), RED).save(tmp_path / "good.png")
    (tmp_path / name).write_bytes(faults()[name])
    for read in (lambda: load_image_folder(tmp_path, SIZE), lambda: opened(tmp_path)):
        with pytest.raises(ValueError, match="cannot") as raised:
            read()
        assert str(tmp_path / name) in str(raised.value)
        assert "good.png" not in str(raised.value)
    with pytest.warns(UserWarning, match="1 of 2 images cannot be read") as caught:
        data = load_image_folder(tmp_path, SIZE, on_error="skip")
    assert str(tmp_path / name) in str(caught[-1].message)
    assert [path.name for path in data.paths] == ["good.png"]


def opened(folder):
    files = open_image_folder(folder, SIZE)
    return files.__getitems__(range(len(files)))


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "locked.png"
    Image.new("RGB", (8, 8)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(ValueError, match=r"locked\.png .*Permission denied"):
        load_image_folder(tmp_path, SIZE)
