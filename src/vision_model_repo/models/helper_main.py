"""What runs in a helper process: chat templates, and tokenizers that nobody knows yet. See `helper_process`.

A request and its answer are each a line of JSON. The process has little memory, and a limit of processor time for each
request; over it, the system ends the process. It imports what a task needs and neither torch nor transformers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

COMPILED_TEMPLATES = 16


class Refused(Exception):
    """What is wrong, in words for whoever asked."""


class TooMuch(Refused):
    """It would take too much time or memory."""


def render(template: str, variables: dict[str, Any], most: int) -> str:
    """A text that a chat template makes, of no more than so many characters."""
    pieces, length = [], 0
    for piece in _compiled(template).generate(**variables):
        length += len(piece)
        if length > most:
            raise TooMuch(f"it makes a text of more than {most:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def compile_template(template: str) -> str:
    """Raises Refused for what is no template."""
    import jinja2

    try:
        _compiled(template)
    except jinja2.TemplateError as error:
        raise Refused(f"it is no template: {error}") from None
    return "fine"


@lru_cache(COMPILED_TEMPLATES)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(1)
def _environment() -> Any:
    """Jinja as transformers sets it up for chat templates, in `transformers.utils.chat_template_utils`."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant says, for training alone."""

        tags = {"generation"}  # noqa: RUF012 (as Jinja has it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller: Any) -> str:
            return caller()

    class Dict:
        """`dict`, without the class's own attributes."""

        def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict(*args, **kwargs)

        def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args, **kwargs)

    class Namespace(jinja2.utils.Namespace):
        """Without names that begin with an underscore."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            self, given = args[0], dict(*args[1:], **kwargs)
            for name in given:
                _check_name(name)
            jinja2.utils.Namespace.__init__(self, given)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            super().__setitem__(name, value)

    def _check_name(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no name that begins with an underscore: {name!r}")

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = Dict()
    environment.globals["namespace"] = Namespace
    return environment


MAX_GROWTH = 64
"""Times that normalisers may make a text longer, by what they replace."""
MAX_FIXED_PADDING = 8192
MAX_PATTERN = 4000
PROBES = (
    "a" * 3000,
    "A" * 3000,
    " " * 3000,
    "0" * 3000,
    "!" * 3000,
    "\n" * 3000,
    "ab" * 1500,
    "aA" * 1500,
    "a " * 1500,
    " \n" * 1500,
    "a1" * 1500,
    "x" * 3000 + "!",
    " " * 3000 + "a",
    "\u00e9\u4e16 'll" * 500,
    "The quick brown fox can't jump 123 times over it's lazy dog.\n\n" * 50,
)
"""Texts over which a pattern takes long that goes back over what it has matched."""
MAX_TOKENS = 64 * 3000


def check_tokenizer(path: str) -> str:
    """Raises Refused for a tokenizer that takes too long or makes too much of a text."""
    content = json.loads(Path(path).read_bytes())
    if not isinstance(content, dict):
        raise Refused("it is no JSON object")
    _check_parts(content)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.no_truncation()
    for text in (*PROBES, *_texts_of_patterns(content)):
        if len(tokenizer.encode(text).ids) > MAX_TOKENS:
            raise Refused("it makes far more tokens than a text has characters")
    return "fine"


def _check_parts(content: dict[str, Any]) -> None:
    growth = 1.0
    for part in _objects(content.get("normalizer")):
        if part.get("type") == "Replace":
            pattern, made = part.get("pattern"), part.get("content")
            matched = len(next(iter(pattern.values()), "")) if isinstance(pattern, dict) else 0
            growth *= max(1.0, len(made if isinstance(made, str) else "") / max(1, matched))
    if growth > MAX_GROWTH:
        raise Refused("its normalizer makes a text many times longer")
    padding = content.get("padding")
    fixed = padding.get("strategy") if isinstance(padding, dict) else None
    if isinstance(fixed, dict) and not 0 <= (fixed.get("Fixed") or 0) <= MAX_FIXED_PADDING:
        raise Refused(f"it fills texts up to more than {MAX_FIXED_PADDING:,} tokens")
    if isinstance(padding, dict) and not 0 <= (padding.get("pad_to_multiple_of") or 0) <= MAX_FIXED_PADDING:
        raise Refused(f"it fills texts up to more than {MAX_FIXED_PADDING:,} tokens")
    for pattern in _patterns(content):
        if len(pattern) > MAX_PATTERN:
            raise Refused(f"one of its patterns has more than {MAX_PATTERN:,} characters")
        if _nests(pattern):
            raise Refused(f"its pattern {pattern[:80]!r} repeats a repetition, which can take for ever")


def _patterns(content: dict[str, Any]) -> Iterator[str]:
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        for part in _objects(content.get(name)):
            pattern = part.get("pattern")
            if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
                yield pattern["Regex"]


def _texts_of_patterns(content: dict[str, Any]) -> Iterator[str]:
    """Texts of the very letters that the patterns are about. All of them come once at the end: a pattern that needs one
    is not tried at all where there is none."""
    letters = "".join(sorted({letter for pattern in _patterns(content) for letter in pattern}))
    for letter in letters[:64]:
        yield letter * 1000 + "~" + letters[:200]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside of a value."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _nests(pattern: str) -> bool:
    """Whether a group that can match one text in several ways is repeated without a bound, as in (a+)+ and (a|a)*.

    Tokenizers have none: they repeat letters of a kind.
    """
    repeats = [False]
    escaped = in_set = False
    index = 0
    while index < len(pattern):
        letter = pattern[index]
        index += 1
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif in_set:
            in_set = letter != "]"
        elif letter == "[":
            in_set = True
        elif letter == "(":
            repeats.append(False)
            # What follows is no repetition, but says of which kind the group is.
            index += pattern[index : index + 1] == "?"
        elif letter == ")" and len(repeats) > 1:
            inner = repeats.pop()
            again = _is_unbounded(pattern, index)
            if inner and again:
                return True
            repeats[-1] |= inner or again
        elif letter in "+*?|" or (letter == "{" and _is_unbounded(pattern, index - 1)):
            repeats[-1] = True
    return False


def _is_unbounded(pattern: str, index: int) -> bool:
    """Whether what stands there repeats what is before it without a bound, or very often."""
    if pattern[index : index + 1] in ("+", "*"):
        return True
    if pattern[index : index + 1] != "{":
        return False
    least, _, most = pattern[index + 1 : pattern.find("}", index)].partition(",")
    bounds = [bound for bound in (least, most) if bound.isdigit()]
    return (pattern.find(",", index) != -1 and not most) or any(int(bound) > 64 for bound in bounds)


TASKS: dict[str, Callable[..., str]] = {
    "render": render,
    "compile_template": compile_template,
    "check_tokenizer": check_tokenizer,
}


@contextmanager
def _processor_time(seconds: float) -> Iterator[None]:
    """The system ends the process where the block takes more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, hard))


def _answer(line: bytes) -> dict[str, Any]:
    task, seconds, arguments = json.loads(line)
    try:
        with _processor_time(seconds):
            return {"answer": TASKS[task](**arguments)}
    except MemoryError:
        return _refused("it takes too much memory", gave_up=True)
    except RecursionError:
        return _refused("it calls itself too many times", gave_up=True)
    except TooMuch as error:
        return _refused(str(error), gave_up=True)
    except Exception as error:
        return _refused(str(error) or type(error).__name__)
    except BaseException as error:
        # The panics of extensions in Rust are no Exceptions.
        if type(error).__name__ != "PanicException":
            raise
        return _refused(str(error))


def _refused(why: str, *, gave_up: bool = False) -> dict[str, Any]:
    return {"refused": " ".join(why.split())[:300].rstrip("."), "gave_up": gave_up}


def main() -> None:
    memory = int(sys.argv[1])
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        # Not every system knows every limit; where one is missing, those of the other process watch the clock.
        with suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(line)).encode() + b"\n")


if __name__ == "__main__":
    main()
