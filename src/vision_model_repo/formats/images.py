"""Pictures in and out: base64, encoded bytes and (H, W, 3) uint8 RGB arrays."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import Any

import numpy as np
import pybase64
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile

from vision_model_repo.errors import InsufficientMemory, InvalidInput, is_out_of_memory
from vision_model_repo.formats.sanitize import check_avif, sanitize, webp_pixels

# Formats with a decoder that is maintained and needs no outside program. JPEG also covers MPO (the pictures of
# stereo and phone cameras), whose first frame is a JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

DECODER_BYTES = 8
"""What a decoder holds of a pixel beside what it gives, at most, as far as `has_room` asks."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


def use_block_cache(blocks: int) -> None:
    """Lets Pillow keep image memory between decodes instead of handing it back to the operating system.

    Without it every decode faults its pages in anew, which can cost more than the decoding itself. It holds for
    the whole process.

    Args:
        blocks: blocks of up to 16 MB that are kept; 0 keeps none.
    """
    Image.core.set_blocks_max(blocks)


def decode_base64(text: str) -> bytes:
    """Bytes of a base64 string in the standard or URL-safe alphabet.

    A `data:...;base64,` prefix, white space, and missing padding are tolerated.

    Raises:
        InvalidInput: the string is not base64.
    """
    if text[:5].lower() == "data:":
        header, _, text = text.partition(",")
        if not header.lower().endswith(";base64"):
            raise InvalidInput("A data: string must carry base64, as in data:image/png;base64,iVBOR...")
    try:
        # The strict decoder is also the fast one, but wants the standard alphabet alone. Replacing what is not
        # there costs next to nothing.
        plain = text.encode("ascii").replace(b"-", b"+").replace(b"_", b"/")
        for space in (b"\n", b"\r", b" ", b"\t"):
            plain = plain.replace(space, b"")
        return pybase64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise InvalidInput("The string is neither base64 nor an http or https URL.") from None


def decode_image(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes a picture as it is seen: upright by its EXIF orientation, in RGB, its first frame if it has several.

    Transparent parts show white. Gray samples of 16 bits are scaled to 8; those of 32 bits too where they use no
    more than 16 (or, as floats, 0..1), else they are stretched from their least to their greatest value. CMYK is
    converted without its colour profile.

    Args:
        data: an encoded JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.
        max_pixels: most pixels of the picture; checked before it is decoded.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        InvalidInput: empty, not a picture of these formats, damaged, truncated, too large, or made so that decoding
            it costs far more than its pixels tell.
        InsufficientMemory: the memory of this machine does not suffice.
    """
    if not data:
        raise InvalidInput("The image is empty (zero bytes).")
    claimed = 0
    # Pillow's plugins answer damaged bytes with errors of a dozen types, so all of them are caught here.
    try:
        name = _format_of(data)
        data = sanitize(data, name, max_pixels=max_pixels)
        if name == "WEBP" and (claimed := webp_pixels(data)) > max_pixels:
            raise InvalidInput(f"The image has {claimed} pixels; at most {max_pixels} are accepted.")
        picture = _open(data, name)
        width, height = picture.size
        claimed = width * height
        if width * height > max_pixels:
            raise InvalidInput(f"The image has {width} x {height} pixels; at most {max_pixels} are accepted.")
        if name == "AVIF":
            check_avif(data, width * height)
        if (pixels := _decode_jpeg(data, picture)) is not None:
            return pixels
        picture.load()
        upright = _UPRIGHT.get(_orientation(picture))
        rgb = _to_rgb(picture)
        return np.array(rgb if upright is None else rgb.transpose(upright))
    except InvalidInput:
        raise
    except Image.DecompressionBombError:
        raise InvalidInput(f"The image has too many pixels; at most {max_pixels} are accepted.") from None
    except Exception as error:
        if is_out_of_memory(error) or not has_room(DECODER_BYTES * claimed):
            raise InsufficientMemory(
                "The server has no memory left to decode the image. Send a smaller one, or try again later."
            ) from error
        raise InvalidInput("The image is damaged or truncated.") from error


def pixel_digest(image: NDArray[np.uint8]) -> str:
    """A name for the pixels of an (H, W, 3) uint8 image, equal for equal images alone.

    Cryptographic, since answers are kept under it: who can make two images of one name could put a wrong answer in
    another caller's way. SHA-256 of the standard library takes about a tenth of the time that decoding a JPEG takes.
    """
    digest = hashlib.sha256(np.array(image.shape, "<u4").tobytes())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG of an (H, W, 3) RGB or (H, W) gray uint8 array."""
    return _save(Image.fromarray(image), "PNG", compress_level=1)


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """JPEG of an (H, W, 3) RGB or (H, W) gray uint8 array.

    Args:
        quality: 1 (smallest) to 95 (best).
    """
    return _save(Image.fromarray(image), "JPEG", quality=quality)


def _save(picture: Image.Image, format_name: str, **options: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def _format_of(data: bytes) -> str:
    """The name of the format by its first bytes. Raises InvalidInput for one that is not read here."""
    Image.init()
    for name in FORMATS:
        _, accept = Image.OPEN.get(name, (None, None))
        if accept and accept(data[:16]) is True:
            return name
    raise InvalidInput(f"The data is no image of a format that is read here: {', '.join(FORMATS)}.")


def has_room(size: int) -> bool:
    """Whether so many bytes could be allocated. Asking for memory does not touch it.

    Some decoders fail in the same way for want of memory and for bad data; this tells one from the other.
    """
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Reads the header only.

    `Image.open` would do, but that it compares the size with a process-wide limit and then only warns; the limit
    that counts here is the caller's.
    """
    factory, _ = Image.OPEN[name]
    return factory(BytesIO(data), "")


def _decode_jpeg(data: bytes, picture: Image.Image) -> NDArray[np.uint8] | None:
    """Pixels of an upright JPEG in gray or colour: the same that Pillow gives, in half the time.

    Both have them from libjpeg-turbo, but here it writes them straight into the array. None for what is no such JPEG
    or has the least flaw: Pillow judges what is damaged and what only unusual.
    """
    if not data.startswith(b"\xff\xd8") or _orientation(picture) in _UPRIGHT:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) == picture.size and colours in ("YCbCr", "Gray"):
            return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if is_out_of_memory(error):
            raise
    return None


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        # Viewers show a picture whose metadata is broken; so do we.
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _to_8_bits(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Gray samples of 16 or 32 bits as 8 bits, (H, W)."""
    if samples.dtype.itemsize == 2:
        return np.rint(np.arange(65536) / 257).astype(np.uint8)[samples]
    finite = samples[np.isfinite(samples)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    full_scale = 65535.0 if samples.dtype.kind == "i" else 1.0
    if low >= 0 and high <= full_scale:
        low, high = 0.0, full_scale
    values = np.nan_to_num(samples.astype(np.float32), nan=low, posinf=high, neginf=low)
    values -= low
    values *= 255 / ((high - low) or 1.0)
    return np.rint(values).astype(np.uint8)
