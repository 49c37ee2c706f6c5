"""What a checkpoint's JSON files may say: plain values within bounds, under names that choose no code and no file.

Libraries hand what such a file says to constructors, as keyword arguments and attributes. Many names among them choose
code (`auto_map`, `attn_implementation`), a file (`tokenizer_file`) or a second repository (`backbone`). Honest files
have such names, too, so what choose code or a place is left out, and refused only where the checkpoint would be read
wrongly without it. Numbers are bounded, since each may say how often a library repeats something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from vision_model_repo.errors import NotFound

MAX_TEXT = 2**20
"""Characters of one text; a chat template is the longest that there is."""
MAX_ENTRIES = 50_000
"""Of one list or object; ImageNet's larger list of labels has 21,843."""
MAX_LABELS = 32_768
"""That transformers makes up names for, several times over: 3 s for as many."""
MAX_NUMBER = 2**20
MAX_LARGE_NUMBER = 2**24
MAX_FREE_NUMBER = 2.0**129
"""Beyond what a float32 holds, which some files write for no limit."""
LEAST_COUNT = 512
"""Layers that any configuration may ask for; more only where as many tensors are in the weight files."""
MAX_SIDE = 4096
"""Pixels of a side of what a network sees."""
MAX_PIECES = 64
"""Tiles, crops and frames into which a processor makes one image."""

# What is left out wherever it stands: it chooses code, or asks for a download.
_LEFT_OUT = re.compile(
    r"_.*|auto_map|.*name_or_path|(attn|experts)_implementation|(torch_)?dtype|use_kernels|kernel_config|"
    r"custom_\w+|init_inputs|tokenizer_object|sp_model_kwargs|from_slow|fix_mistral_regex|is_local|"
    r"transformers_weights|configuration_files|gguf_file|use_pretrained_backbone|pretrained|"
    r"trust_remote_code|local_files_only|force_download|code_revision|revision|subfolder|proxies|token|use_auth_token"
)
# What is left out where it is a text: a file or a folder.
_PLACE = re.compile(r".*_(files?|paths?|dirs?|folder|url|filename)|url|file|path|hf_hub_id|source|state_dict|config")
_COUNT = re.compile(r"(.*_)?(layers?|blocks?|depths?|stages?|levels?|experts?|repeats?)")
_SIDE = re.compile(r"(.*_)?(image|img|input|crop)_size")
_LARGE = re.compile(r".*(position|length|window|pixels|vocab|tokens?|seed|max|edge|area|seq).*|(.*_)?ids?")
_FREE = re.compile(r".*(theta|freq|limit|timescale).*|(.*_)?(base|value|scale|min|max|model_max_length)")
_PIECES = re.compile(r".*(temporal|tile|crops|frames).*")
_PIXEL_COUNTS = re.compile(r"Qwen|Glm|GLM|PaddleOCR|Ernie|VideoLlama|Keye|HunYuan|Dots")
"""Image processors whose shortest and longest edge are numbers of pixels."""

TIMM_ARGUMENTS = frozenset(
    "img_size in_chans num_classes global_pool patch_size embed_dim depth num_heads mlp_ratio qkv_bias init_values "
    "class_token reg_tokens no_embed_class pre_norm fc_norm final_norm dynamic_img_size dynamic_img_pad act_layer "
    "norm_layer drop_rate drop_path_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate pos_embed "
    "pool_include_prefix strict_img_size window_size depths embed_dims num_features width depth_multiplier "
    "output_stride head_hidden_size features qk_norm ref_feat_shape use_fc_norm use_rel_pos_bias stem_type".split()
)
"""What the `model_args` of a timm checkpoint may set."""


def refuse(model_id: str, why: str) -> NotFound:
    return NotFound(f"{model_id} is no checkpoint that this server can load: {why}.")


class Cleaner:
    """Checks what one JSON file says, and leaves out what chooses code or a place.

    Args:
        model_id: to name in errors.
        name: of the file.
        tensors: in the checkpoint's weight files; no configuration may ask for many times more layers.
    """

    def __init__(self, model_id: str, name: str, tensors: int) -> None:
        self._model_id, self._name = model_id, name
        self._most_repeats = max(LEAST_COUNT, tensors)
        self._pixel_counts = False

    def clean(self, content: Any) -> dict[str, Any]:
        """A copy without what is left out. Raises NotFound for what breaks a bound."""
        if not isinstance(content, dict):
            raise self.error("it holds no JSON object")
        kind = content.get("image_processor_type") or (content.get("image_processor") or {})
        kind = kind.get("image_processor_type") if isinstance(kind, dict) else kind
        self._pixel_counts = isinstance(kind, str) and _PIXEL_COUNTS.match(kind) is not None
        return self._object(content, ())

    def error(self, why: str) -> NotFound:
        return refuse(self._model_id, f"in its {self._name} {why}")

    def _object(self, content: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
        self._check_entries(content, place)
        kept: dict[str, Any] = {}
        for key, value in content.items():
            if len(key) > 1000:
                raise self.error("a name is longer than 1,000 characters")
            if key in ("quantization_config", "compression_config") and value:
                raise self.error(f"{key} says that its weights are packed, which this server does not read")
            if key == "backbone" and value and not content.get("backbone_config"):
                raise self.error(f"the backbone is {str(value)[:80]!r}, and no other repository is followed")
            if _LEFT_OUT.fullmatch(key) or key == "backbone" or (isinstance(value, str) and _PLACE.fullmatch(key)):
                continue
            if key == "model_args" and isinstance(value, dict):
                kept[key] = self._arguments(value, (*place, key))
            else:
                kept[key] = self._any(key, value, (*place, key))
        return kept

    def _any(self, key: str, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return self._object(value, place)
        if isinstance(value, list):
            self._check_entries(value, place)
            return [self._any(key, each, place) for each in value]
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise self.error(f"{'.'.join(place)[:80]} has more than {MAX_TEXT:,} characters")
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._check_number(key, value, place)
        return value

    def _arguments(self, given: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
        """What timm's networks are made with."""
        if unknown := set(given) - TIMM_ARGUMENTS:
            raise self.error(f"model_args has {min(unknown)[:80]!r}, which this server does not know")
        for key, value in given.items():
            if not _is_plain(value):
                raise self.error(f"model_args.{key} is no plain value")
        return {key: self._any(key, value, (*place, key)) for key, value in given.items()}

    def _check_entries(self, value: Any, place: tuple[str, ...]) -> None:
        if len(value) > MAX_ENTRIES:
            raise self.error(f"{'.'.join(place)[:80]} has more than {MAX_ENTRIES:,} entries")

    def _check_number(self, key: str, value: float, place: tuple[str, ...]) -> None:
        most = self._most(key)
        # Infinity and NaN pass only where any number does.
        if not (abs(value) <= most or (most == MAX_FREE_NUMBER and value != value)):
            raise self.error(f"{'.'.join(place)[:80]} is {str(value)[:20]}, and no more than {most:,.0f} makes sense")

    def _most(self, key: str) -> float:
        """The largest number that a name may have."""
        if _COUNT.fullmatch(key):
            return self._most_repeats
        if key in ("num_labels", "num_classes"):
            return MAX_LABELS
        if _SIDE.fullmatch(key):
            return MAX_SIDE
        if _FREE.fullmatch(key):
            return MAX_FREE_NUMBER
        if "processor" in self._name:
            return self._most_of_processor(key)
        return MAX_LARGE_NUMBER if _LARGE.fullmatch(key) else MAX_NUMBER

    def _most_of_processor(self, key: str) -> float:
        """Of what decides into how many pixels or tokens an image is made."""
        if key in ("min_pixels", "max_pixels") or (self._pixel_counts and key.endswith("_edge")):
            return 2 * MAX_LARGE_NUMBER
        if _PIECES.fullmatch(key) and not key.endswith("size"):
            return MAX_PIECES
        return MAX_LARGE_NUMBER if key.endswith(("_id", "_ids")) else MAX_SIDE


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(_is_plain(each) for each in value)
    if isinstance(value, str):
        return re.fullmatch(r"[A-Za-z0-9_]{0,40}", value) is not None
    return value is None or isinstance(value, bool | int | float)


GENERATION = re.compile(
    r"(bos|eos|pad|decoder_start|forced_bos|forced_eos)_token_id|(begin_)?suppress_tokens|bad_words_ids|"
    r"(encoder_)?(repetition_penalty|no_repeat_ngram_size)|min_length|min_new_tokens|use_cache|"
    r"renormalize_logits|remove_invalid_values|transformers_version"
)
"""What a generation_config.json may set. How a token is chosen, and when an answer ends, a request says."""


def clean_generation(content: dict[str, Any]) -> dict[str, Any]:
    """Without what chooses another way to generate."""
    return {key: value for key, value in content.items() if GENERATION.fullmatch(key)}


Check = Callable[[Any], bool]


def whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def number(most: float) -> Check:
    return lambda value: type(value) in (int, float) and abs(value) <= most


def one_of(*values: Any) -> Check:
    return lambda value: any(value is known or (type(value) is type(known) and value == known) for known in values)


def some(check: Check, least: int, most: int) -> Check:
    """A list of so many values."""
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def matching(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def check_entries(model_id: str, name: str, content: Any, allowed: Mapping[str, Check]) -> None:
    """Raises NotFound for an entry that is not allowed, or whose value is not."""
    if not isinstance(content, dict):
        raise refuse(model_id, f"its {name} is no JSON object")
    for key, value in content.items():
        if key not in allowed:
            raise refuse(model_id, f"its {name} has {key[:80]!r}, which this server does not know")
        if not allowed[key](value):
            raise refuse(model_id, f"in its {name} {key} is {str(value)[:80]!r}, which this server does not take")
