"""The numbers that bound connections."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from vision_model_repo.settings import Settings

try:
    import resource
except ImportError:  # Windows, where descriptors are not counted.
    resource = None

logger = logging.getLogger(__name__)

MEGABYTE = 2**20
USUAL_CONNECTIONS = 1000
# The rest is for model files, downloads and the temporary files of forms.
DESCRIPTOR_SHARE = 0.8
MOST_DESCRIPTORS = 65_536
"""As far as the soft limit is raised: containers often have a hard limit of a billion."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection and all of them may take; times in seconds.

    Attributes:
        header_bytes: request line and header fields of one request, or trailers.
        header_count: header fields of one request.
        header_seconds: from the first byte of a header, or from the connection, to the end of the header.
        keep_alive_seconds: between an answer and the next request.
        max_connections: open at once.
        address_share: of all connections, once three quarters are taken.
        body_rate: least bytes per second of a body, on average over body_seconds.
        answer_rate: least bytes per second that a client reads, on average over answer_seconds.
        unsent_bytes: of all answers that clients have not read.
        linger_bytes, linger_seconds: how much of a body is read and thrown away after its request was refused.
        trusted_proxies: addresses and networks of proxies; "unix" is any client of a Unix socket, "*" is anybody.
    """

    header_bytes: int = 32 * 2**10
    header_count: int = 100
    header_seconds: float = 20.0
    keep_alive_seconds: float = 75.0
    max_connections: int = USUAL_CONNECTIONS
    address_share: float = 0.25
    body_rate: float = 500.0
    body_seconds: float = 30.0
    answer_rate: float = 500.0
    answer_seconds: float = 60.0
    unsent_bytes: int = 256 * MEGABYTE
    linger_bytes: int = 1024 * MEGABYTE
    linger_seconds: float = 30.0
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            header_bytes=settings.max_header_kb * 2**10,
            header_count=settings.max_headers,
            header_seconds=settings.header_seconds,
            keep_alive_seconds=settings.keep_alive_seconds,
            max_connections=settings.max_connections or connections_for(raise_descriptor_limit()),
            address_share=settings.address_share,
            body_rate=settings.min_body_bytes_per_second,
            body_seconds=settings.body_pause_seconds,
            answer_rate=settings.min_answer_bytes_per_second,
            # A request that may take no longer than this cannot wait for its reader for longer either.
            answer_seconds=min(settings.answer_pause_seconds, settings.request_timeout_seconds),
            unsent_bytes=settings.max_unsent_mb * MEGABYTE,
            # A body that is refused for its size is larger than the limit.
            linger_bytes=2 * max(settings.max_body_mb, settings.max_video_mb) * MEGABYTE,
            linger_seconds=settings.refused_body_seconds,
            trusted_proxies=settings.trusted_proxies,
        )


def connections_for(descriptors: int | None) -> int:
    """How many connections so many file descriptors are good for; None is any number."""
    if descriptors is None:
        return USUAL_CONNECTIONS
    return max(1, min(USUAL_CONNECTIONS, int(descriptors * DESCRIPTOR_SHARE)))


def raise_descriptor_limit() -> int | None:
    """Raises the soft limit of open files towards the hard one, and answers it; None where there is none."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            logger.info("The limit of %d open files could not be raised to %d: %s", soft, wanted, error)
        else:
            return wanted
    return soft
