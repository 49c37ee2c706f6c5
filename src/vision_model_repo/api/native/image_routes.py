"""Images sent once and asked about many times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from vision_model_repo.api.dependencies import EngineDependency, engine_of, is_json, media_type, read_json
from vision_model_repo.api.errors import UnsupportedMediaType, describe
from vision_model_repo.api.forms import open_form, read_file
from vision_model_repo.api.native.body import FORM, JSON
from vision_model_repo.api.native.images import Source, WireImage, read_image
from vision_model_repo.api.native.models import Message
from vision_model_repo.api.openapi import content, schema_of
from vision_model_repo.api.protocols import INFER, RESULTS
from vision_model_repo.api.router import Router
from vision_model_repo.engine.engine import Engine
from vision_model_repo.engine.images import StoredImage
from vision_model_repo.errors import InvalidInput
from vision_model_repo.formats.images import pixel_digest

router = Router(prefix="/images", tags=["images"], responses=describe(401, 422, 429))

# What people call the field of a form; the first is the one that is documented.
FIELDS = ("image", "images", "file")


class ImageBody(BaseModel):
    """An image to keep."""

    model_config = ConfigDict(extra="forbid")

    image: WireImage = Field(
        description="A base64 string (with or without a `data:` prefix), an `http(s)` URL, or an object that says "
        "which of the two it is.",
        examples=["iVBORw0KGgoAAAANSUhEUg...", {"data": "https://example.com/image.jpg", "format": "url"}],
    )


class KeptImage(BaseModel):
    """An image that is kept; `{"data": image_id, "format": "id"}` stands for it in every request."""

    image_id: str = Field(
        description="Its id, the same for the same pixels.", examples=["9b1dc6e0d3f04a7c8f6f9d4f5f0f4b52"]
    )
    width: int = Field(description="Width in pixels, as a person sees it.", examples=[640])
    height: int = Field(description="Height in pixels, as a person sees it.", examples=[480])
    expires_at: datetime = Field(
        description="When it will be forgotten if it is not used until then, UTC; earlier only when newer images need "
        "the room.",
        examples=["2026-01-31T13:00:00.000000Z"],
    )


FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "The image file.", "examples": ["a.jpg"]}
    },
}


@router.post(
    "",
    policy=INFER,
    status_code=201,
    responses={
        200: {"model": KeptImage, "description": "The image was kept already; its time is renewed."},
        **describe(400, 413, 415, 503),
    },
    openapi_extra=content({JSON: schema_of(ImageBody), FORM: FORM_SCHEMA}),
)
async def store_image(request: Request, response: Response) -> KeptImage:
    """Decodes an image and keeps it, so that later requests can do with its id."""
    engine = engine_of(request)
    picture = await read_image(await _source(request), engine)
    digest = picture.digest or await engine.pixels.run(pixel_digest, picture.pixels)
    image = StoredImage(picture.encoded, picture.pixels, digest)
    if not engine.images.add(image):
        response.status_code = 200
    return _describe(image, engine)


@router.get("/{image_id}", policy=RESULTS, responses=describe(404))
async def get_image(engine: EngineDependency, image_id: str) -> KeptImage:
    """What is known of an image that is kept. Asking renews its time."""
    return _describe(engine.images.get(image_id), engine)


@router.delete("/{image_id}", policy=RESULTS, responses=describe(404))
async def delete_image(engine: EngineDependency, image_id: str) -> Message:
    """Forgets an image. Requests and jobs that have it already go on."""
    engine.images.delete(image_id)
    return Message(message=f"Image {image_id} deleted")


async def _source(request: Request) -> Source:
    media = media_type(request)
    if is_json(media):
        return (await read_json(request, ImageBody)).image
    if media != FORM:
        raise UnsupportedMediaType(f"Send the image as {JSON} or {FORM}, and say so in Content-Type.")
    async with open_form(request, max_files=1) as form:
        found = [(name, value) for name, value in form.multi_items() if name in FIELDS]
        if len(found) != 1:
            raise InvalidInput(f"The form has {len(found)} images. Send one file as the form field {FIELDS[0]}.")
        return await read_file(*found[0])


def _describe(image: StoredImage, engine: Engine) -> KeptImage:
    height, width = image.pixels.shape[:2]
    expires_at = datetime.fromtimestamp(engine.images.expires_at, UTC)
    return KeptImage(image_id=image.image_id, width=width, height=height, expires_at=expires_at)
