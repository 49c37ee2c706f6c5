"""Checkpoints of someone who means harm: code to run, other files to read, sizes and patterns that hang.

`attacks(loader)` yields what is tried on each loader, `try_attack` tries one. Nothing here needs a server.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.hostile.honest import WRITERS, write
from vision_model_repo.errors import InvalidInput, NotFound, VisionError
from vision_model_repo.models.base import Checkpoint
from vision_model_repo.models.catalog import Catalog
from vision_model_repo.tasks.chat import ChatRequest

Expectation = Literal["refused", "safe"]
"""Refused with 404, or either that or read as if the attack were not there."""
Change = Callable[["Ground"], None]

SECRET = "correct-horse-battery"


@dataclass(frozen=True)
class Ground:
    """Where an attack takes place.

    Attributes:
        folder: of a copy of an honest checkpoint.
        outside: a folder beside it, whose files are none of the checkpoint's business.
    """

    folder: Path
    outside: Path

    @property
    def marker(self) -> Path:
        """The file that code of the checkpoint would write."""
        return self.outside / "code-has-run"

    @property
    def secret(self) -> Path:
        return self.outside / "secret.txt"

    def has(self, *names: str) -> bool:
        return all((self.folder / name).exists() for name in names)

    def weights(self) -> Path:
        return next(iter(sorted(self.folder.glob("*.safetensors"))))

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        path = self.folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(change(content) or content))


@dataclass(frozen=True)
class Attack:
    """One thing that is tried.

    Attributes:
        change: makes an honest checkpoint hostile.
    """

    name: str
    change: Change
    expectation: Expectation = "refused"


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Attributes:
        refusal: what the caller was told; None for a checkpoint that was loaded.
        opened: files outside of the checkpoint that were opened for it.
        ran: whether its code ran.
    """

    refusal: str | None
    opened: tuple[str, ...]
    ran: bool
    seconds: float


def prepare(loader: str, parent: Path, write: Callable[[str, Path], object]) -> Ground:
    """An honest checkpoint of a loader, and a secret beside it."""
    ground = Ground(parent / "checkpoint", parent / "outside")
    ground.folder.mkdir(parents=True)
    ground.outside.mkdir()
    ground.secret.write_text(SECRET)
    write(loader, ground.folder)
    return ground


_watched: list[Path] = []
_opened: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watched and event == "open" and isinstance(args[0], str):
        path = os.path.realpath(args[0])
        if any(path.startswith(f"{folder}{os.sep}") for folder in _watched):
            _opened.append(path)


sys.addaudithook(_watch)


def try_attack(loader: str, ground: Ground) -> Outcome:
    """Loads a checkpoint, asks it for one answer where it is one for conversations, and unloads it."""
    load = Catalog.installed()[WRITERS[loader][0]].loader()
    began, refusal = time.monotonic(), None
    _opened.clear()
    _watched.append(ground.outside.resolve())
    try:
        model: Any = load(Checkpoint("someone/hostile", ground.folder), device="cpu", dtype="float32")
        try:
            if loader == "vlm":
                model(ChatRequest.ask("describe the image.", [], max_new_tokens=1))
        finally:
            model.unload()
    except VisionError as error:
        assert isinstance(error, NotFound | InvalidInput), f"{type(error).__name__}: {error.message}"
        refusal = error.message
    finally:
        _watched.clear()
    return Outcome(refusal, tuple(_opened), ground.marker.exists(), time.monotonic() - began)


def run(loader: str) -> list[tuple[str, str | None, float]]:
    """Tries everything on a loader: the name of each attack, what is wrong with what came of it, and its seconds."""
    tried = []
    for attack in attacks(loader):
        with tempfile.TemporaryDirectory() as folder:
            ground = prepare(loader, Path(folder), write)
            attack.change(ground)
            try:
                outcome = try_attack(loader, ground)
            except Exception as error:
                tried.append((attack.name, f"{type(error).__name__}: {error}", 0.0))
                continue
        wrong = None
        if outcome.ran:
            wrong = "code of the checkpoint ran"
        elif outcome.opened:
            wrong = f"it opened {outcome.opened[0]}"
        elif attack.expectation == "refused" and outcome.refusal is None:
            wrong = "it was loaded"
        tried.append((attack.name, wrong, outcome.seconds))
    return tried


def attacks(loader: str, *, numbers: bool = True) -> Iterator[Attack]:
    """All that is tried on a loader's checkpoints.

    Args:
        numbers: whether numbers of a configuration are tried that may make a network.
    """
    yield Attack("code wherever a file can name some", _code, "safe")
    yield Attack("places wherever a file can name one", _places, "safe")
    yield from _files(loader)
    yield from _weights()
    main = "open_clip_config.json" if loader == "open_clip" else "config.json"
    yield from _configs(main)
    if loader == "open_clip":
        yield from _open_clip()
    elif loader == "timm":
        yield from _timm()
    else:
        yield from _transformers()
        if numbers:
            yield from _numbers()
    if loader in ("clip", "grounding_dino", "sam3", "sam3_video", "vlm", "text_embedding"):
        yield from _tokenizers(loader)
    if loader == "vlm":
        yield from _templates()
        yield from _rules()
    if loader == "text_embedding":
        yield from _sentence_files()


CODE = """
from pathlib import Path
Path({marker!r}).write_text("code of the checkpoint ran")
class Hostile:
    def __init__(self, *args, **kwargs): pass
    from_pretrained = classmethod(lambda cls, *args, **kwargs: cls())
def generate(*args, **kwargs): pass
"""
AUTO_CLASSES = (
    "AutoConfig AutoModel AutoTokenizer AutoProcessor AutoImageProcessor AutoVideoProcessor AutoFeatureExtractor "
    "AutoModelForImageTextToText AutoModelForImageClassification AutoModelForVision2Seq"
).split()


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def _code(ground: Ground) -> None:
    """Python beside the files, a pickle beside the weights, and names of both in every file that may have them."""
    code = CODE.format(marker=str(ground.marker))
    for name in ("hostile.py", "modeling.py", "custom_generate/generate.py", "tokenization.py"):
        (ground.folder / name).parent.mkdir(exist_ok=True)
        (ground.folder / name).write_text(code)
    for name in ("pytorch_model.bin", "open_clip_pytorch_model.bin", "model.pth", "training_args.bin"):
        (ground.folder / name).write_bytes(pickle.dumps(_Payload(ground.marker)))
    auto_map: dict[str, Any] = dict.fromkeys(AUTO_CLASSES, "hostile.Hostile")
    chosen = {
        "trust_remote_code": True,
        "custom_generate": "hostile",
        "custom_pipelines": {"x": {"impl": "hostile.Hostile"}},
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel:function",
        "experts_implementation": "someone/kernel",
        "use_kernels": True,
    }
    for name in ("config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json"):
        if ground.has(name) or name == "generation_config.json":
            ground.edit(name, lambda content: {**content, **chosen, "auto_map": auto_map})
    tokenizer_map = {**auto_map, "AutoTokenizer": ["hostile.Hostile", "hostile.Hostile"]}
    ground.edit("tokenizer_config.json", lambda content: {**content, **chosen, "auto_map": tokenizer_map})
    if ground.has("modules.json"):
        ground.edit("modules.json", lambda content: [*content, {"type": "hostile.Hostile", "path": "2_Hostile"}])


PLACES = (
    "vocab_file tokenizer_file merges_file spm_file special_tokens_map_file chat_template_file transformers_weights "
    "_name_or_path name_or_path base_model_name_or_path pretrained_model_name_or_path cache_dir gguf_file index_path "
    "checkpoint_path pretrained_weights_path url file hf_hub_id"
).split()


def _places(ground: Ground) -> None:
    """A file outside, or a second repository, in every file that may name one; and an adapter of another one."""
    places = dict.fromkeys(PLACES, str(ground.secret))
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if ground.has(name):
            ground.edit(name, lambda content: {**places, **content, **places})
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(ground.outside), "auto_mapping": None}
    (ground.folder / "adapter_config.json").write_text(json.dumps(adapter))
    (ground.folder / "adapter_model.safetensors").write_bytes(ground.weights().read_bytes())


def _files(loader: str) -> Iterator[Attack]:
    main = "open_clip_config.json" if loader == "open_clip" else "config.json"
    for name in (main, "weights"):
        yield Attack(f"a link to a file outside for {name}", lambda ground, name=name: _link_out(ground, name))
        yield Attack(f"a pipe for {name}", lambda ground, name=name: _replace(ground, name, os.mkfifo))
        yield Attack(f"a link to a device for {name}", lambda ground, name=name: _replace(ground, name, _zero))
        yield Attack(f"a folder for {name}", lambda ground, name=name: _replace(ground, name, Path.mkdir))
    yield Attack(
        "a link that leads to itself", lambda ground: _replace(ground, main, lambda path: path.symlink_to(path))
    )
    for name in ("tokenizer.json", "chat_template.jinja", "vocab.txt"):
        yield Attack(f"a pipe for {name}", lambda ground, name=name: _replace(ground, name, os.mkfifo))
        yield Attack(f"a link to a file outside for {name}", lambda ground, name=name: _link_out(ground, name))
    for name in ("preprocessor_config.json", "tokenizer_config.json", "generation_config.json"):
        yield Attack(f"a pipe for {name}", lambda ground, name=name: _replace(ground, name, os.mkfifo))


def _path(ground: Ground, name: str) -> Path:
    return ground.weights() if name == "weights" else ground.folder / name


def _replace(ground: Ground, name: str, make: Callable[[Path], Any]) -> None:
    path = _path(ground, name)
    path.unlink(missing_ok=True)
    make(path)


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link_out(ground: Ground, name: str) -> None:
    path = _path(ground, name)
    other = ground.outside / path.name
    other.write_bytes(path.read_bytes() if path.exists() else SECRET.encode())
    path.unlink(missing_ok=True)
    path.symlink_to(other)


def _weights() -> Iterator[Attack]:
    def header(content: bytes, length: int | None = None, holds: int = 0) -> Change:
        def change(ground: Ground) -> None:
            path = ground.weights()
            path.write_bytes((len(content) if length is None else length).to_bytes(8, "little") + content)
            if holds:
                # Sparse: it takes no space on the disk.
                os.truncate(path, holds)

        return change

    def tensor(**entry: Any) -> bytes:
        return json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}).encode()

    yield Attack("a header of 9 exabytes", header(b"{}", 2**63))
    yield Attack("a header of 8 GB in a sparse file", header(b"{}", 8 * 2**30, 9 * 2**30))
    yield Attack("a header nested 100,000 deep", header(b"[" * 100_000))
    yield Attack("a header that is a list", header(b"[]"))
    yield Attack("no header", header(b"", 0))
    yield Attack("a shape of 2^60", header(tensor(shape=[2**60])))
    yield Attack("a negative shape", header(tensor(shape=[-1, -1])))
    yield Attack("offsets behind the end", header(tensor(data_offsets=[2**40, 2**40 + 4])))
    yield Attack("a shape of texts", header(tensor(shape=["4"])))
    yield Attack("a dtype that is none", header(tensor(dtype="../../etc")))
    for target in ("../outside/model.safetensors", "/etc/passwd", "missing.safetensors", 5):

        def index(ground: Ground, target: Any = target) -> None:
            content = {"metadata": {}, "weight_map": {"x": target}}
            (ground.folder / "model.safetensors.index.json").write_text(json.dumps(content))

        yield Attack(f"an index that names {target}", index)


def _configs(main: str) -> Iterator[Attack]:
    def text(content: bytes) -> Change:
        def change(ground: Ground) -> None:
            (ground.folder / main).write_bytes(content)

        return change

    yield Attack("a config nested 100,000 deep", text(b'{"a":' * 100_000))
    yield Attack("a config nested 60 deep", text(b'{"a":' * 60 + b"1" + b"}" * 60))
    yield Attack("a config of 20 MB", text(b'{"a": "' + b"x" * 20_000_000 + b'"}'))
    yield Attack("a config that is a list", text(b"[]"))
    yield Attack("a config that is a number", text(b"5"))
    yield Attack("a config of bytes that are no text", text(b"\xff\xfe\x00\x80" * 10))
    yield Attack("a number of 10,000 digits", text(b'{"a": ' + b"9" * 10_000 + b"}"))
    yield Attack("an empty config", text(b"{}"))


def every_number(main: str, content: Any, to: Any) -> Iterator[tuple[str, Any]]:
    """The content with one number after the other replaced, each with the name of its place."""
    if isinstance(content, dict | list):
        for key, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
            if type(value) is int:
                content[key] = to
                yield str(key), content
            else:
                for name, _ in every_number(main, value, to):
                    yield f"{key}.{name}", content
            content[key] = value


def _set(name: str, **values: Any) -> Change:
    return lambda ground: ground.edit(name, lambda content: {**content, **values})


def _numbers() -> Iterator[Attack]:
    for count in (20_000_000, 1_000_000, 10**400, 1e300, "many", None, -1, [10**9], {"a": 1}):
        layers = {"num_hidden_layers": count, "text_config": {"num_hidden_layers": count}, "depths": [count] * 4}
        # A file whose network has no such entry is read as it was.
        yield Attack(f"{str(count)[:20]} layers", _set("config.json", **layers), "safe")
    for key in ("hidden_size", "vocab_size", "intermediate_size", "num_labels", "image_size", "patch_size"):
        yield Attack(f"a {key} of 900,000", _set("config.json", **{key: 900_000}), "safe")


def _transformers() -> Iterator[Attack]:
    for key in ("num_hidden_layers", "hidden_size", "vocab_size", "num_labels", "image_size"):
        yield Attack(f"a {key} of 10^12", _set("config.json", **{key: 10**12}))
    for key in ("quantization_config", "compression_config"):
        yield Attack(f"a {key}", _set("config.json", **{key: {"quant_method": "mxfp4", "modules": "someone/kernel"}}))
    yield Attack(
        "a backbone from a second repository",
        _set("config.json", backbone="someone/else", backbone_config=None, use_pretrained_backbone=True),
    )
    yield Attack(
        "a network of timm's with arguments",
        _set("config.json", model_args={"checkpoint_path": "/etc/passwd", "pretrained": True}),
    )
    for side in (10**12, 60_000):
        size = {"height": side, "width": side, "shortest_edge": side}
        for name in ("preprocessor_config.json", "processor_config.json"):
            yield Attack(f"images of {side} pixels a side in {name}", _set(name, size=size, crop_size=size))


def _timm() -> Iterator[Attack]:
    for key, value in {
        "checkpoint_path": "/etc/passwd",
        "pretrained_cfg_overlay": {"url": "http://127.0.0.1/", "file": "/etc/passwd"},
        "cache_dir": "/",
        "features_only": True,
        "num_classes": 10**12,
        "act_layer": "os.system; x",
        "norm_layer": {"a": "b"},
    }.items():
        yield Attack(f"model_args with {key}", _set("config.json", model_args={key: value}))
    yield Attack("an architecture from the hub", _set("config.json", architecture="hf-hub:someone/else"))
    yield Attack("an architecture in a folder", _set("config.json", architecture="local-dir:/etc"))
    yield Attack("as many classes as weights would fill the memory", _set("config.json", num_classes=1_000_000))
    cfg = {"url": "http://127.0.0.1:9/x.bin", "file": "/etc/passwd", "hf_hub_id": "someone/else", "source": "hf-hub"}
    yield Attack("weights of another place", _set("config.json", pretrained_cfg={**cfg, "custom_load": True}), "safe")
    yield Attack("images of 60,000 pixels", _set("config.json", pretrained_cfg={"input_size": [3, 60_000, 60_000]}))


def _open_clip() -> Iterator[Attack]:
    def model(part: str | None = None, **values: Any) -> Change:
        def change(content: Any) -> None:
            (content["model_cfg"][part] if part else content["model_cfg"]).update(values)

        return lambda ground: ground.edit("open_clip_config.json", change)

    for value in (
        {"trust_remote_code": True},
        {"bpe_path": "/etc/passwd"},
        {"additional_special_tokens": ["(a+)+b"]},
        {"tokenizer_file": "/etc/passwd"},
        {"reduction_mask": "syntax"},
        {"clean": "lower", "subfolder": "../outside"},
        [],
        "trust_remote_code",
    ):
        yield Attack(f"tokenizer_kwargs {value}", model("text_cfg", tokenizer_kwargs=value))
        named = model("text_cfg", tokenizer_kwargs=value, hf_tokenizer_name="someone/else")
        yield Attack(f"tokenizer_kwargs {value} for a tokenizer of transformers'", named)
    yield Attack("a tower for texts from a second repository", model("text_cfg", hf_model_name="someone/else"))
    yield Attack("a tokenizer from a second repository", model("text_cfg", hf_tokenizer_name="someone/else"))
    for name in ("hf-hub:someone/else", "local-dir:/etc", "/etc", "../outside", "test_vit:x"):
        yield Attack(f"a tower of timm's from {name}", model("vision_cfg", timm_model_name=name))
    for part in ("vision_cfg", "text_cfg"):
        yield Attack(f"20,000,000 layers in {part}", model(part, layers=20_000_000))
        yield Attack(f"500 layers in {part}", model(part, layers=500, width=8192))
        yield Attack(f"an argument for a layer in {part}", model(part, norm_kwargs={"normalized_shape": 10**9}))
        yield Attack(f"a function for a layer in {part}", model(part, act_kwargs={"approximate": "os.system"}))
        yield Attack(f"an entry that nothing knows in {part}", model(part, cast_dtype="os.system"))
        yield Attack(f"no width in {part}", model(part, width=0))
    yield Attack("a text's length of 10^9", model("text_cfg", context_length=10**9))
    yield Attack("an image of 10^9 pixels a side", model("vision_cfg", image_size=10**9))
    yield Attack("an entry that nothing knows", model(None, output_dict={"a": 1}))
    yield Attack("a tower that is a text", model(None, text_cfg="ViT-B-32"))


def _tokenizers(loader: str) -> Iterator[Attack]:
    def part(name: str, value: Any) -> Change:
        return lambda ground: ground.edit("tokenizer.json", lambda content: {**content, name: value})

    def split(pattern: str) -> Any:
        return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}

    for pattern in (r"(a+)+b", r"(a|a)*b", r"(?:\w*)*!", r"(x+x+)+y", r"((ab)*)*c", r"(.{1,999}){1,999}$", "(" * 2000):
        yield Attack(f"a tokenizer's pattern {pattern[:20]}", part("pre_tokenizer", split(pattern)))
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}
    growing = {"type": "Sequence", "normalizers": [grow] * 20}
    yield Attack("a normalizer that makes a text 4^20 times longer", part("normalizer", growing))
    padding = {
        "strategy": {"Fixed": 10**9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    yield Attack("padding to 10^9 tokens", part("padding", padding))
    yield Attack("a tokenizer nested 100,000 deep", lambda ground: _text(ground, "tokenizer.json", "[" * 100_000))
    if loader != "text_embedding":
        token = {"id": 10**6, "content": "x", "special": False, "normalized": False}
        token |= {"lstrip": False, "rstrip": False, "single_word": False}
        # Others have rows to spare for it, or refuse a text that has it.
        expected: Expectation = "refused" if loader == "grounding_dino" else "safe"
        yield Attack(
            "a token that the network lacks",
            lambda ground: ground.edit(
                "tokenizer.json", lambda content: {**content, "added_tokens": [*content["added_tokens"], token]}
            ),
            expected,
        )
    yield Attack("a tokenizer that is a number", lambda ground: _text(ground, "tokenizer.json", "5"))
    yield Attack("a tokenizer of 70 MB", lambda ground: os.truncate(ground.folder / "tokenizer.json", 70 * 2**20))
    yield Attack("a tokenizer's class that is none", _set("tokenizer_config.json", tokenizer_class="os.system"), "safe")
    yield Attack("tokens that are no texts", _set("tokenizer_config.json", bos_token=[{"a": 1}]), "safe")
    yield Attack("an added token of a dictionary", _set("tokenizer_config.json", added_tokens_decoder={"x": 5}), "safe")


def _text(ground: Ground, name: str, content: str) -> None:
    (ground.folder / name).write_text(content)


TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 3000000000 }}",
    "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "{% include 'x' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('x') }}",
    "{{ (range(100000) | list) * 100000 }}",
    "{{ '%999999999d' % 5 }}",
    "{{ 1 / 0 }}",
    "{{ nothing.at.all }}",
    "{% if %}",
    "{{ raise_exception('no') }}",
    "{{ messages | tojson(indent=999999999) }}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
)


def _templates() -> Iterator[Attack]:
    for template in TEMPLATES:
        yield Attack(
            f"the chat template {template[:60]}", lambda ground, it=template: _text(ground, "chat_template.jinja", it)
        )
    yield Attack("a chat template of 2 MB", lambda ground: _text(ground, "chat_template.jinja", "x" * 2 * 2**20))


def _rules() -> Iterator[Attack]:
    for key, value in {
        "repetition_penalty": -5,
        "no_repeat_ngram_size": -1,
        "bad_words_ids": [[]],
        "suppress_tokens": [10**7],
        "forced_bos_token_id": 10**7,
        "eos_token_id": "no",
        "min_length": "no",
    }.items():
        yield Attack(f"answers by {key} {value}", _set("generation_config.json", **{key: value}))
    others = {"custom_generate": "x/y", "assistant_model": "x/y", "cache_implementation": "x", "num_beams": 10**5}
    yield Attack("answers by another way", _set("generation_config.json", **others, penalty_alpha=0.6, top_k=4), "safe")


def _sentence_files() -> Iterator[Attack]:
    def step(kind: str, path: Any) -> Change:
        added = {"type": f"sentence_transformers.models.{kind}", "path": path}
        return lambda ground: ground.edit("modules.json", lambda content: [*content, added])

    for path in ("../outside", "/etc", "1_Pooling/../../outside", "..", ".", 5, None, "a" * 5000, "\0"):
        yield Attack(f"a step in {str(path)[:40]!r}", step("Dense", path))

    def dense(**config: Any) -> Change:
        def change(ground: Ground) -> None:
            step("Dense", "2_Dense")(ground)
            (ground.folder / "2_Dense").mkdir()
            (ground.folder / "2_Dense" / "config.json").write_text(json.dumps(config))

        return change

    yield Attack("a linear layer of 10^12 weights", dense(in_features=10**6, out_features=10**6))
    yield Attack("a linear layer without weights", dense(in_features=16, out_features=16))
    yield Attack("an activation that is code", dense(in_features=16, out_features=16, activation_function="os.system"))
    yield Attack("a length that is a text", _set("sentence_bert_config.json", max_seq_length="many"))
    yield Attack("prompts that are numbers", _set("config_sentence_transformers.json", prompts={"a": 5}))
