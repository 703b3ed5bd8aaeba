"""Numbered hostile picture files: the same number always gives the same bytes."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

__all__ = ["EXAMPLES", "crafted", "mutated", "random_files"]

EXAMPLES = Path(__file__).parents[2] / "examples"
SIGNATURES = (
    b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8 ", b"GIF89a", b"GIF87a", b"BM",
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x20ftypavif", b"\0\0\0\x20ftypavis",
)  # fmt: skip
TIFF_WAYS = (None, "tiff_lzw", "jpeg", "tiff_deflate", "packbits")
HUGE_TILES = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 99}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/hurt) (w) file closefile\n"
MVG = b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://example.com/x)'\n"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
SCRIPT_IN_JPEG = b"\xff\xfe\0\x22<script>alert(1)</script>    "


@cache
def seeds() -> tuple[bytes, ...]:
    """Real photos, small, in every format and many modes."""
    made: list[bytes] = []
    for name in ("cow.jpg", "coffee.jpg", "street.jpg"):
        with Image.open(EXAMPLES / name) as opened:
            photo = opened.convert("RGB").resize((96, 64))
        alpha = photo.copy()
        alpha.putalpha(photo.convert("L"))
        grey16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "a description"
        made += [
            saved(photo, "JPEG", exif=exif), saved(photo, "JPEG", progressive=True),
            saved(photo.convert("CMYK"), "JPEG"), saved(photo.convert("L"), "JPEG"),
            saved(photo, "PNG"), saved(alpha, "PNG"), saved(grey16, "PNG"),
            saved(photo.quantize(16), "PNG"),
            saved(photo, "WEBP"), saved(alpha, "WEBP", lossless=True),
            saved(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]),
            saved(photo, "GIF"), saved(photo, "GIF", save_all=True, append_images=[photo.rotate(180)]),
            saved(photo, "BMP"), saved(photo.convert("1"), "BMP"), saved(photo.quantize(8), "BMP"),
            *(saved(photo, "TIFF", compression=way) for way in TIFF_WAYS),
            saved(grey16, "TIFF"), saved(photo.convert("L").convert("F"), "TIFF"),
            saved(photo, "AVIF"), saved(photo, "MPO", save_all=True, append_images=[photo]),
        ]  # fmt: skip
    made += [(EXAMPLES / name).read_bytes() for name in ("cow.jpg", "coffee.jpg")]
    return tuple(made)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def mutated(number: int) -> bytes:
    """A real picture, damaged: bits, runs, lengths, cuts, doublings, or two files spliced."""
    rng = np.random.default_rng(number)
    chosen = seeds()
    data = bytearray(chosen[int(rng.integers(len(chosen)))])
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data))) if data else 0
        near = int(rng.integers(min(64, len(data)))) if data else 0  # headers are worth more attention
        length = int(rng.integers(1, 64))
        way = int(rng.integers(9))
        if way == 0 and data:
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 1 and data:
            data[near] = int(rng.integers(256))
        elif way == 2:
            data[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif way == 3:
            data[near : near + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\1\0\0"]
            )
        elif way == 4:
            del data[at:]
        elif way == 5:
            del data[at : at + length]
        elif way == 6:
            data[at:at] = data[near : near + length] * int(rng.integers(1, 50))
        elif way == 7:
            other = chosen[int(rng.integers(len(chosen)))]
            data[at:] = other[min(at, len(other)) :]
        else:
            data[at:at] = bytes(SIGNATURES[int(rng.integers(len(SIGNATURES)))])
    return bytes(data)


def random_files() -> st.SearchStrategy[bytes]:
    """Anything at all, preferably behind the signature of a format, with numbers where sizes are expected."""
    number = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 65_535, 65_536, 2**31 - 1, 2**31]))
    words = st.builds(lambda n, order: struct.pack(order + "I", n), number, st.sampled_from("<>"))
    body = st.lists(st.one_of(words, st.binary(max_size=40)), max_size=30).map(b"".join)
    return st.one_of(
        st.binary(max_size=2000),
        st.builds(lambda start, rest: start + rest, st.sampled_from(SIGNATURES), body),
        st.builds(_png, number, number, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=200)),
        st.builds(_bmp, number, number, st.integers(0, 65_535), st.integers(0, 8), body),
        st.builds(
            _tiff, st.lists(st.tuples(st.integers(254, 340), st.integers(0, 17), number, number)), body
        ),
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, depth: int, colour: int, body: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURES[1] + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(body)) + _chunk(b"IEND", b"")


def _bmp(width: int, height: int, depth: int, compression: int, body: bytes) -> bytes:
    info = struct.pack("<IIIHHIIIIII", 40, width, height, 1, depth, compression, len(body), 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + info + body


def _tiff(entries: list[tuple[int, int, int, int]], body: bytes) -> bytes:
    rows = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)[:500])
    return b"II*\0" + struct.pack("<IH", 8, len(rows) // 12) + rows + bytes(4) + body


@cache
def crafted() -> dict[str, bytes]:
    """Files that were made to hurt, by what they are."""
    made = {
        "bomb: PNG of 30,000 x 30,000": _png(30_000, 30_000, 8, 2, bytes(1000)),
        "bomb: PNG of 7,000 x 7,000 in 7 kB": saved(Image.new("1", (7000, 7000)), "PNG"),
        "bomb: GIF of 65,535 x 65,535": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(1000),
        "bomb: WebP of 16,383 x 16,383": _lossless_webp_header(16_383, 16_383),
        "bomb: text of a PNG": _png_with_bombs(),
        "bomb: run lengths of a BMP": _run_length_bmp(40_000_000, 1, b"\0\2\xff\xff"),
        "bomb: a JPEG in 3,000 passes": _many_scans(3000),
        "bomb: tile of a TIFF": _tiff([(tag, 4, 1, value) for tag, value in HUGE_TILES.items()], bytes(200)),
        "1 x 100,000 PNG": saved(Image.new("RGB", (1, 100_000), (9, 99, 9)), "PNG"),
        "100,000 x 1 BMP": saved(Image.new("RGB", (100_000, 1), (9, 99, 9)), "BMP"),
        "1 x 1 GIF": saved(Image.new("P", (1, 1)), "GIF"),
        "SVG called jpg": SVG,
        "EPS called jpg": EPS,
        "PDF called jpg": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(app.alert(1))>>>>",
        "web page called jpg": b"<!DOCTYPE html><script>alert(1)</script>",
        "MVG called jpg": MVG,
        "polyglot: GIF and JavaScript": b"GIF89a/*" + bytes(100) + b"*/=1;alert(1)",
        "polyglot: JPEG and HTML": seeds()[0][:2] + SCRIPT_IN_JPEG + seeds()[0][2:],
        "polyglot: PNG and ZIP": seeds()[4] + _archive({"a.txt": b"hello"}),
        "polyglot: BMP and PDF": saved(Image.new("RGB", (8, 8)), "BMP") + b"%PDF-1.7 %%EOF",
        "nothing": b"",
        "one byte": b"\xff",
    }  # fmt: skip
    for kind in ("PPM", "ICO", "TGA", "PCX", "DDS", "ICNS", "JPEG2000", "SGI", "PDF"):
        made[f"{kind} called png"] = saved(Image.new("RGB", (32, 32)), kind)
    return made


def largest() -> dict[str, bytes]:
    """The largest pictures that are allowed, in the modes that need the most memory to read."""
    side = 7071  # 7071 x 7071 is just under fifty million
    grey = np.add.outer(np.arange(side, dtype=np.uint32), np.arange(side, dtype=np.uint32))
    floats = np.repeat(np.arange(side, dtype=np.float32)[:, None], side, axis=1)
    made: dict[str, bytes] = {}
    rgb = Image.fromarray(np.repeat((grey % 256).astype(np.uint8)[..., None], 3, axis=2))
    made["50 MP JPEG"] = saved(rgb, "JPEG", quality=50)
    made["50 MP JPEG, turned"] = saved(rgb, "JPEG", quality=50, exif=_turned())
    rgba = rgb.copy()
    rgba.putalpha(128)
    made["50 MP PNG with alpha"] = saved(rgba, "PNG", compress_level=1)
    made["50 MP WebP with alpha"] = saved(rgba, "WEBP", lossless=True, method=0, quality=0)
    made["50 MP PNG of 16 bits"] = saved(Image.fromarray(grey.astype(np.uint16)), "PNG", compress_level=1)
    made["50 MP TIFF of floats"] = saved(Image.fromarray(floats), "TIFF", compression="tiff_lzw")
    made["50 MP CMYK JPEG"] = saved(rgb.convert("CMYK"), "JPEG", quality=50)
    return made


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _lossless_webp_header(width: int, height: int) -> bytes:
    body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(64)
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def _png_with_bombs() -> bytes:
    bomb = zlib.compress(bytes(200_000_000), 9)
    plain = saved(Image.new("RGB", (8, 8)), "PNG")
    texts = _chunk(b"zTXt", b"key\0\0" + bomb) + _chunk(b"iCCP", b"name\0\0" + bomb)
    return plain[:33] + texts + plain[33:]


def _run_length_bmp(width: int, height: int, codes: bytes) -> bytes:
    start = 14 + 40 + 1024
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 1, 1, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(codes), 0, 0, start) + info + bytes(1024) + codes


def _many_scans(scans: int) -> bytes:
    data = saved(Image.new("RGB", (4000, 4000), (120, 90, 30)), "JPEG", progressive=True, quality=5)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + b"\xff\xd9"


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@cache
def hostile_archives() -> dict[str, bytes]:
    """Batch uploads that were made to hurt."""
    photo = seeds()[0]
    inner = _archive({f"{i}.bin": bytes(10_000_000) for i in range(5)})
    return {
        "path traversal": _photos("../../../../tmp/was-here.jpg", "/etc/was-here.jpg"),
        "Windows traversal": _photos("..\\..\\was-here.jpg", "C:\\was-here.jpg"),
        "zip bomb": _archive({f"{i}.jpg": bytes(100_000_000) for i in range(3)}),
        "nested zip bomb": _archive({"inner.zip": inner}),
        "too many photos": _archive({f"{i}.jpg": photo for i in range(200)}),
        "link out of the archive": _with_link(photo),
        "encrypted": _archive({"a.jpg": photo}).replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\1\0").replace(
            b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"
        ),
        "names that are commands": _photos("$(touch hurt).jpg", "-rf.jpg", "a\nb.jpg"),
        "damaged": _archive({"a.jpg": photo})[:-30],
    }  # fmt: skip


def _photos(*names: str) -> bytes:
    return _archive(dict.fromkeys(names, seeds()[0]))


def _with_link(photo: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.jpg", photo)
    return buffer.getvalue()
