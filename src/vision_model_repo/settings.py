"""Every setting, once. Environment variables and `.env` fill it; CONFIG.md and .env.example are written from it."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, get_origin

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

CommaList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The server's configuration, read once at start-up and never changed."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True, allow_inf_nan=False
    )

    # Server
    # Not plain HOST, which some shells and conda set to names of their own.
    api_host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    api_port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    root_protocol: str = Field(
        "native",
        description="Protocol whose paths are at the root, native, ingrain, openai or pixano; each is under its prefix "
        "as well, such as `/pixano`, and at the root with the paths that no other one has.",
    )
    config_file: Path | None = Field(
        None,
        description="Models under names of their own: a TOML file, or a Python file of Pixano's, which is run as such.",
        examples=["models.toml"],
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    cors_origins: CommaList = Field(
        ("localhost",),
        description="Origins of web pages that may use the server beside its own, comma separated; `localhost` stands "
        "for every port of this machine, `*` lets every page on the web use it.",
        examples=["localhost,https://annotate.example"],
    )
    allowed_hosts: CommaList = Field(
        (),
        description="Names under which the server is reached, comma separated, beside localhost, IP addresses and the "
        "machine's own name; `*.example.com` stands for every name of a domain, `*` for every name.",
        examples=["vision.example.com"],
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys that callers must send as `Authorization: Bearer KEY` or `X-API-Key: KEY`, comma separated; "
        "empty means open to all.",
    )
    rate_limit_per_minute: int = Field(
        0, ge=0, description="Requests a minute for one key or address; 0 means no limit."
    )
    shutdown_grace_seconds: float = Field(
        30.0, ge=0, description="Seconds that running requests and jobs get to finish at shutdown."
    )

    # Connections
    max_connections: int = Field(
        0,
        ge=0,
        description="Connections open at once; for one more, the one that has waited longest for a request is closed. "
        "0 means 1000, or 80 % of the files that the process may open where that is fewer.",
    )
    address_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Part of the connections, and of MAX_PENDING_REQUESTS, that one address may hold once three "
        "quarters of them are taken.",
    )
    trusted_proxies: CommaList = Field(
        (),
        description="Addresses or networks of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count, comma "
        "separated; `unix` is whoever connects by a Unix socket, `*` is anybody. Empty means that they never count.",
        examples=["127.0.0.1"],
    )
    max_header_kb: int = Field(32, ge=1, description="Largest header of a request, with its first line, in KB.")
    max_headers: int = Field(100, ge=1, description="Most header fields of a request.")
    header_seconds: float = Field(
        20.0, gt=0, description="Time from a connection, or the first byte of a request, to the end of its header."
    )
    keep_alive_seconds: float = Field(
        75.0, gt=0, description="Time for which a connection is kept open between two requests."
    )
    min_body_bytes_per_second: float = Field(
        500.0,
        ge=0,
        description="Slowest that a body may arrive, on average over BODY_PAUSE_SECONDS; then it is answered 408.",
    )
    min_answer_bytes_per_second: float = Field(
        500.0,
        ge=0,
        description="Slowest that an answer may be read while some of it waits to be sent, on average over "
        "ANSWER_PAUSE_SECONDS; then the connection is cut and the request is cancelled.",
    )
    answer_pause_seconds: float = Field(
        60.0,
        gt=0,
        description="Time over which MIN_ANSWER_BYTES_PER_SECOND is measured; REQUEST_TIMEOUT_SECONDS if that is less.",
    )
    max_unsent_mb: int = Field(
        256,
        ge=1,
        description="Memory for answers that clients have not read yet, all together, in MB; beyond it the connections "
        "that have not read for longest are cut.",
    )
    refused_body_seconds: float = Field(
        30.0,
        gt=0,
        description="Time for which the rest of a body is read and thrown away after its request was refused, so that "
        "the client gets to read why; at most twice MAX_VIDEO_MB, or MAX_BODY_MB where that is more.",
    )

    # Checkpoints
    hf_root_folder: Path | None = Field(
        None, description="Root of the Hugging Face cache (what HF_HOME is); weights lie in its `hub` folder."
    )
    hf_token: SecretStr | None = Field(None, description="Hugging Face token, for gated and private checkpoints.")
    hf_hub_offline: bool = Field(False, description="Never ask the hub; use what is cached, local or embedded.")
    default_model_ids: dict[str, str] = Field(
        default_factory=dict,
        description="Checkpoint of each model_type when a request names none, as JSON. A model_type left out uses its "
        "first known variant where that is cached or reachable, and the embedded demo checkpoint otherwise.",
        examples=['{"sam3": "facebook/sam3"}'],
    )
    allowed_model_ids: CommaList = Field(
        (),
        description="Patterns of the only checkpoints that may be loaded, comma separated: repositories on the hub, "
        "`demo/` names and folders; empty allows all.",
    )
    model_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders of which callers may learn what is in them, comma separated: for a path there, an answer "
        "says what is wrong with the checkpoint. For any other path only the log does.",
        examples=["/models"],
    )
    model_load_timeout_seconds: float = Field(
        1800.0,
        gt=0,
        description="Time to read one checkpoint, downloads left out; it is given up then, and `/ready` says degraded.",
    )
    pixano_deploy_plugins: bool = Field(
        False,
        description="Let callers deploy model classes of Pixano's plugins, which do with parameters what they like. "
        "Families of this server they may always deploy.",
    )

    # Models in memory
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Device for models: auto, cpu, cuda, cuda:N or mps.",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Weights and arithmetic; auto is bfloat16 on CUDA and float32 elsewhere."
    )
    auto_load: bool = Field(True, description="Load a model at the first request that needs it.")
    preload_models: CommaList = Field(
        (), description="Model types to load at start-up, comma separated; `/ready` answers 503 until they are."
    )
    warm_up: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Run a model once before it counts as loaded, so that no request pays for its first pass; auto "
        "does so on CUDA, and wherever models are compiled.",
    )
    compile_models: bool = Field(
        False,
        description="Compile the encoders with torch.compile: faster passes for a load that takes a minute longer. "
        "On the CPU it needs a C++ compiler.",
    )
    channels_last: bool = Field(
        False, description="Keep the weights of convolutions channels-last, which convolutional networks may gain from."
    )
    memory_budget_mb: int = Field(
        0, ge=0, description="Memory for weights on one device in MB; 0 means 90 % of the device."
    )
    model_idle_seconds: float = Field(
        0.0, ge=0, description="Unload a model after this long without a request; 0 means never."
    )

    # What is kept for the next request
    cache_device_mb: int = Field(
        2048, ge=0, description="Memory on the devices for encodings of recent images in MB; 0 keeps none there."
    )
    cache_host_mb: int = Field(
        512, ge=0, description="Memory of the host for encodings of recent images in MB; 0 keeps none there."
    )
    image_store_mb: int = Field(512, ge=1, description="Memory for images sent to `POST /images` in MB.")
    max_stored_images: int = Field(1000, ge=1, description="Most images kept by `POST /images`.")
    image_ttl_seconds: float = Field(
        3600.0, gt=0, description="Time for which an image is kept after it was last asked about."
    )
    click_memory_mb: int = Field(64, ge=1, description="Memory for masks that a later click may refine in MB.")

    # Scheduling
    max_batch_size: int = Field(
        0,
        ge=0,
        description="Most images, or questions about images, in one forward pass; 0 means as many as were found to pay "
        "when the model was warmed up, or the model's own limit where it was not.",
    )
    batch_wait_ms: float = Field(
        0.0,
        ge=0,
        description="Longest wait for more requests to fill a batch, from its oldest request on; 0 means none.",
    )
    max_pending_requests: int = Field(
        128, ge=1, description="Maximum requests in flight; one more is answered 503 with Retry-After."
    )
    request_timeout_seconds: float = Field(
        300.0, gt=0, description="Time for one request, queueing included; 504 afterwards."
    )
    body_pause_seconds: float = Field(
        30.0, gt=0, description="Longest time without a piece of a request's body; then it is given up."
    )
    pixel_threads: int = Field(
        0, ge=0, description="Threads that decode, prepare and encode images; 0 means one fewer than the cores."
    )
    torch_threads: int = Field(
        0,
        ge=0,
        description="Threads of one CPU forward pass; 0 means OMP_NUM_THREADS where that is set, and otherwise one "
        "fewer than the cores, so that those that decode pictures do not hold it up.",
    )

    # Input limits
    max_body_mb: int = Field(
        128, ge=1, description="Largest request body in MB; a form that brings a video file may have MAX_VIDEO_MB."
    )
    max_control_body_kb: int = Field(
        256, ge=1, description="Largest body in KB of a request that brings no image and asks for no inference."
    )
    max_images: int = Field(64, ge=1, description="Most images in one request.")
    max_image_pixels: int = Field(
        64_000_000, ge=1, description="Most pixels of one image, checked before it is decoded."
    )
    max_request_pixels: int = Field(
        512_000_000, ge=1, description="Most pixels of all images of one request together, once decoded."
    )
    max_prompts: int = Field(64, ge=1, description="Most prompts for one image.")
    max_prompt_characters: int = Field(500, ge=1, description="Longest prompt in characters.")
    max_boxes: int = Field(64, ge=1, description="Most exemplar boxes for one prompt.")
    max_objects: int = Field(64, ge=1, description="Most objects meant by points or boxes in one image.")
    max_points: int = Field(64, ge=1, description="Most points on one object.")
    max_request_points: int = Field(
        16_384, ge=1, description="Most points on all objects of all images of one request together."
    )
    max_text_mb: int = Field(
        8,
        ge=1,
        description="Most text of one JSON body that is not plain ASCII, in MB; an escape, such as `\\n`, counts as 3 "
        "bytes.",
    )
    max_dense_values: int = Field(
        50_000_000, ge=1, description="Most numbers written out as JSON lists in one answer; ask for a compact format."
    )
    allow_private_urls: bool = Field(
        False, description="Let image URLs point to loopback, private and link-local addresses."
    )
    media_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders of which Pixano requests may name files, comma separated; empty allows none.",
        examples=["/data/images"],
    )
    url_timeout_seconds: float = Field(10.0, gt=0, description="Time for one image download, redirects included.")
    max_url_mb: int = Field(32, ge=1, description="Largest image download in MB.")

    # Embedding
    max_texts: int = Field(2048, ge=1, description="Most texts in one request for their embeddings.")
    max_text_characters: int = Field(100_000, ge=1, description="Longest text to be embedded in characters.")
    renormalize_shortened: bool = Field(
        True,
        description="Give embeddings that Ingrain's `nDims` has cut unit length again where `normalize` is on; off "
        "leaves them shorter, as the reference does.",
    )

    # Videos
    max_video_mb: int = Field(512, ge=1, description="Largest video, or all pictures of one together, in MB.")
    video_url_timeout_seconds: float = Field(
        120.0, gt=0, description="Time for one video download, redirects included."
    )
    max_video_frames: int = Field(20_000, ge=1, description="Most frames of a video.")
    max_video_pixels: int = Field(4096 * 2304, ge=1, description="Most pixels of one frame of a video.")
    max_video_seconds: float = Field(1200.0, gt=0, description="Longest video in seconds of play.")
    tracking_store_mb: int = Field(
        1024, ge=1, description="Memory for tracking sessions in MB: videos, and what is remembered of them."
    )
    max_tracking_sessions: int = Field(32, ge=1, description="Most tracking sessions kept.")
    tracking_ttl_seconds: float = Field(
        900.0, gt=0, description="Time for which a tracking session is kept after it was last used."
    )
    max_tracked_objects: int = Field(64, ge=1, description="Most objects tracked in one video at once.")
    max_track_prompts: int = Field(256, ge=1, description="Most points, boxes and masks given for one video.")
    track_patience_frames: int = Field(
        30, ge=0, description="Frames for which an object may be hidden before it is given up."
    )
    track_birth_score: float = Field(0.5, ge=0, le=1, description="Least score of a detection that begins a track.")

    # Chat
    max_messages: int = Field(256, ge=1, description="Most messages in one conversation.")
    max_chat_characters: int = Field(200_000, ge=1, description="Most characters of all messages together.")
    max_new_tokens: int = Field(4096, ge=1, description="Most tokens of an answer that a request may ask for.")

    # Jobs
    max_concurrent_jobs: int = Field(2, ge=1, description="Jobs that run at once.")
    max_queued_jobs: int = Field(100, ge=0, description="Jobs that may wait; one more is answered 503.")
    max_queued_job_mb: int = Field(
        1024, ge=1, description="Memory for the images and videos of jobs that wait in MB; one more is answered 503."
    )
    max_jobs: int = Field(1000, ge=1, description="Jobs remembered, finished ones included.")
    max_job_results_mb: int = Field(512, ge=1, description="Memory for the results of finished jobs in MB.")
    job_ttl_seconds: float = Field(3600.0, gt=0, description="Time for which a finished job is remembered.")

    @field_validator("*", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        is_list = get_origin(cls.model_fields[str(info.field_name)].annotation) is tuple
        if not is_list or not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ("unix", "*"):
                try:
                    ip_network(name, strict=False)
                except ValueError:
                    raise ValueError(f"{name!r} is no IP address or network, nor unix, nor *") from None
        return ("*",) if "*" in names else names
