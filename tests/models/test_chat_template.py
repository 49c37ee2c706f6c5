"""Chat templates write in a helper process what transformers would write in this one, and stop none of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.hostile.checkpoints import TEMPLATES
from vision_model_repo.errors import NotFound
from vision_model_repo.models.chat_template import ChatTemplate
from vision_model_repo.models.helper_process import HelperProcess, HelperRefused
from vision_model_repo.models.hub import Hub

MESSAGES = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief. \u00e9 \u4e16 \U0001f600"}]},
    {
        "role": "user",
        "content": [{"type": "image", "image": object()}, {"type": "text", "text": "Wh<at> 'is' \"it\""}],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "A cat.\n"}]},
]
TOKENS = {"bos_token": "<s>", "additional": ["<a>", "<b>"]}
HONEST = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{% for p in m['content'] %}{% if p.type == 'image' %}<image>"
    "{% elif p['type'] == 'text' %}{{ p.text | trim }}{% endif %}{% endfor %}{% endfor %}",
    "{%- set ns = namespace(n=0) -%}\n{%- for m in messages %}\n  {%- set ns.n = ns.n + 1 %}\n{{ ns.n }}: "
    "{{ m | tojson }}\n{%- if loop.last and add_generation_prompt %}\nassistant:{% endif %}\n{%- endfor %}",
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% generation %}{{ m.content[0].text }}"
    "{% endgeneration %}{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "{{ messages | tojson(indent=2) }}{{ tools }}{{ documents }}{{ additional[1] }}{{ dict(a=1).a }}{{ image }}",
    "{% macro say(m) %}{{ m.role | upper }}{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
)


@pytest.mark.parametrize("template", HONEST)
def test_it_writes_what_transformers_writes(template: str) -> None:
    plain, _ = render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True, **TOKENS)
    written = ChatTemplate(template, TOKENS)
    try:
        assert written.write(MESSAGES) == plain[0]
    finally:
        written.close()


def test_the_embedded_template_is_written_as_transformers_writes_it() -> None:
    template = (Hub(offline=True).resolve("demo/vlm").folder / "chat_template.jinja").read_text()
    messages = [message for message in MESSAGES if message["role"] != "system"][:1]
    plain, _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **TOKENS)
    written = ChatTemplate(template, TOKENS)
    assert written.write(messages) == plain[0]
    written.close()


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_hostile_template_is_refused_in_a_sentence(template: str) -> None:
    written, began = ChatTemplate(template, TOKENS), time.monotonic()
    with pytest.raises(HelperRefused) as refusal:
        written.write(MESSAGES)
    assert 0 < len(str(refusal.value)) <= 300 and "\n" not in str(refusal.value)
    assert time.monotonic() - began < 60
    written.close()


def test_a_template_that_only_refuses_some_conversations_is_a_template() -> None:
    picky = ChatTemplate("{% if messages | length != 3 %}{{ raise_exception('three') }}{% endif %}ok", {})
    picky.check("some/model")
    assert picky.write(MESSAGES) == "ok"
    with pytest.raises(HelperRefused, match="three"):
        picky.write(MESSAGES[:1])
    picky.close()


def test_one_that_is_none_or_has_no_end_is_refused_when_it_is_loaded() -> None:
    for template in ("{% if %}", "{{ 'a' * 3000000000 }}"):
        with pytest.raises(NotFound, match="its chat template cannot be used"):
            ChatTemplate(template, {}).check("some/model")


@pytest.fixture
def helper() -> Iterator[HelperProcess]:
    process = HelperProcess(memory_mb=256, seconds=1.0)
    yield process
    process.close()


def test_the_process_lives_on_between_tasks_and_starts_anew_after_one_that_ended_it(helper: HelperProcess) -> None:
    def render(template: str) -> str:
        return helper.ask("render", template=template, variables={}, most=1000)

    assert render("{{ 1 + 1 }}") == "2"
    [first] = helper._running
    assert render("{{ 'x' * 3 }}") == "xxx" and helper._running == [first]
    with pytest.raises(HelperRefused, match="too much time"):
        render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    assert helper._running == [] and first.returncode is not None
    assert render("{{ 'a' }}") == "a"
    [second] = helper._running
    second.kill()
    with pytest.raises(HelperRefused):
        render("b")
    assert render("b") == "b", "one that was ended from outside is replaced, too"


def test_it_knows_none_of_our_secrets_and_writes_no_file(
    helper: HelperProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    helper.ask("render", template="x", variables={}, most=9)
    [process] = helper._running
    about = Path(f"/proc/{process.pid}")
    assert b"HF_TOKEN" not in (about / "environ").read_bytes()
    limits = {line[:25].strip(): line[25:].split()[:2] for line in (about / "limits").read_text().splitlines()}
    assert limits["Max file size"][0] == "0" and limits["Max address space"][0] == str(256 * 2**20)
