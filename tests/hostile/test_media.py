"""The campaign over pictures and videos, in small."""

from __future__ import annotations

import random

from tests.hostile import media
from vision_model_repo.errors import InvalidInput


def test_mutated_pictures_are_decoded_or_refused() -> None:
    findings = media.run_images_in_process(7, 600, with_bombs=False)
    assert not findings.failures
    assert findings.decoded > 50 and findings.refused > 50


def test_mutated_videos_are_decoded_or_refused() -> None:
    findings = media.run_videos_in_process(7, 100, with_bombs=False)
    assert not findings.failures
    assert findings.decoded > 10 and findings.refused > 10


def test_what_is_sound_is_decoded() -> None:
    findings = media.Findings()
    for name, data in media.sound_images().items():
        findings.note(name, lambda data=data: media.decode_image(data, max_pixels=media.IMAGE_PIXELS), 3)
    for name, data in media.sound_videos().items():
        findings.note(name, lambda data=data: media.open_video(data, media.VIDEO_LIMITS), 3)
    assert not findings.failures and not findings.refused


def test_a_seed_tells_the_mutations() -> None:
    assert list(media.mutated_images(3, 40, with_bombs=False)) == list(media.mutated_images(3, 40, with_bombs=False))
    assert media.mutate(b"abc" * 99, b"def" * 99, random.Random(1)) == media.mutate(
        b"abc" * 99, b"def" * 99, random.Random(1)
    )


def test_findings_tell_other_errors_and_what_takes_long() -> None:
    def fail(error: Exception) -> None:
        raise error

    findings = media.Findings()
    findings.note("sound", lambda: None, 9)
    findings.note("refused", lambda: fail(InvalidInput("why")), 9)
    findings.note("other", lambda: fail(KeyError("x")), 9)
    findings.note("slow", lambda: None, -1.0)
    assert (findings.decoded, findings.refused) == (2, 1)
    assert [failure.split(":")[0] for failure in findings.failures] == ["other", "slow"]
