"""The command line: `vision-model-repo serve | run | models | selftest`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json
from rich.console import Console
from rich.table import Table

from vision_model_repo.errors import VisionError
from vision_model_repo.models.catalog import Catalog
from vision_model_repo.models.hub import Hub
from vision_model_repo.serving import read_settings
from vision_model_repo.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Vision foundation models, served and tried out.")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; API_HOST if left out.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; API_PORT if left out.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol whose paths are at the root; ROOT_PROTOCOL if left out.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Models to deploy: TOML, or a Python file of Pixano's."),
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a source file changes.")] = False,
) -> None:
    """Start the server."""
    from vision_model_repo.serving import serve

    given = {"api_host": host, "api_port": port, "root_protocol": protocol, "config_file": config}
    serve(read_settings(**given), reload=reload)


@app.command()
def run(
    model_type: Annotated[str, typer.Argument(help="Such as sam3, grounding-dino, depth-anything or dinov3.")],
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Image file.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to look for; may be repeated.")
    ] = None,
    model_id: Annotated[str | None, typer.Option(help="Checkpoint; the default if left out.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Any other field of the request, as NAME=VALUE.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Draw the result onto the image and write it here as PNG.")
    ] = None,
) -> None:
    """Ask a model about one image without a server: prints the answer as JSON, or draws it with --output."""
    fields = dict(_name_and_value(text) for text in option or [])
    fields |= {"prompts": prompt} if prompt else {}
    fields |= {"model_id": model_id} if model_id else {}
    try:
        answer = asyncio.run(_infer(model_type, image.read_bytes(), fields, draw=output is not None))
    except (VisionError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    if output is None:
        sys.stdout.write(answer.decode() + "\n")
    else:
        try:
            output.write_bytes(answer)
        except OSError as error:
            raise typer.BadParameter(f"{output} cannot be written: {error.strerror}.", param_hint="--output") from None
        typer.echo(f"Wrote {output}")


@app.command()
def models() -> None:
    """List model types, their known checkpoints, and which of them are on this machine."""
    hub = hub_of(read_settings(), offline=True)
    table = Table("model_type", "task", "checkpoint", "where")
    for spec in Catalog.installed().values():
        known = [*spec.variants, *([spec.demo] if spec.demo else [])]
        for model_id in known:
            first = (spec.model_type, spec.task) if model_id == known[0] else ("", "")
            table.add_row(*first, model_id, _where(hub, model_id))
    Console().print(table)


@app.command()
def selftest(
    scenes: Annotated[int, typer.Option(min=1, help="Tabletop scenes to ask about.")] = 12,
) -> None:
    """Load the embedded checkpoints, score them on scenes they have never seen, and say whether this machine is fit."""
    from vision_model_repo.demo.selftest import check_all

    table = Table("checkpoint", "figures", "required", "result")
    passed = True
    for outcome in check_all(read_settings(), scenes):
        passed &= outcome.passed
        table.add_row(outcome.model_id, outcome.measured, outcome.required, "pass" if outcome.passed else "FAIL")
    Console().print(table)
    if not passed:
        raise typer.Exit(1)


def hub_of(settings: Settings, *, offline: bool) -> Hub:
    """Finds checkpoints as the server would, with or without the network."""
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    return Hub(root=settings.hf_root_folder, token=token, offline=offline or settings.hf_hub_offline)


def _where(hub: Hub, model_id: str) -> str:
    try:
        hub.resolve(model_id)
    except VisionError:
        return "hub"
    return "embedded" if model_id.startswith("demo/") else "cached"


def _name_and_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint="--option")
    return name, from_json(value) if value.lstrip().startswith("[") else value


async def _infer(model_type: str, image: bytes, fields: dict[str, Any], *, draw: bool) -> bytes:
    """What the server would answer to an upload of the image, as JSON or as a picture."""
    from vision_model_repo.api.native.inference import Inference, task_of
    from vision_model_repo.engine.engine import Engine

    engine = Engine(read_settings())
    await engine.start()
    try:
        spec = engine.manager.catalog[model_type]
        inference = Inference(engine, spec, task_of(spec).options.model_validate(fields), [image])
        inference.check()
        started = time.perf_counter()
        return (await inference.overlay(started))[0] if draw else await inference.answer(started)
    finally:
        await engine.close()


if __name__ == "__main__":
    app()
