"""What an open_clip_config.json may say: https://github.com/mlfoundations/open_clip/tree/main/src/open_clip/model_configs.

OpenCLIP hands its parts to constructors as they are. Among them are names of other repositories, of files, and keyword
arguments for tokenizers and layers. Here every entry is known by name and by the values that make sense for it.
"""

from __future__ import annotations

from typing import Any

from vision_model_repo.models.checkpoint_config import (
    MAX_SIDE,
    Check,
    check_entries,
    either,
    matching,
    number,
    one_of,
    refuse,
    some,
    whole,
)

NAME = "open_clip_config.json"

_FLAG = one_of(True, False)
_NONE = one_of(None)
_LAYERS = whole(1, 512)
_WIDTH = whole(1, 65_536)
_SIDE = whole(1, MAX_SIDE)
_SIDES = either(_SIDE, some(_SIDE, 2, 2))
_TOKEN = whole(0, 2**20)
_RATIO = number(64)
_WORD = matching(r"[a-z_]{0,20}")
_COLOR = some(number(255), 3, 3)


def _entries(**allowed: Check) -> Check:
    """An object of which each entry is checked."""
    return lambda value: isinstance(value, dict) and all(key in allowed and allowed[key](value[key]) for key in value)


_TOWER: dict[str, Check] = {
    "width": _WIDTH,
    "mlp_ratio": _RATIO,
    "ls_init_value": either(_NONE, number(10)),
    "pool_type": _WORD,
    "output_tokens": _FLAG,
    "final_ln_after_pool": _FLAG,
    "act_kwargs": either(_NONE, _entries(approximate=one_of("none", "tanh"))),
    "norm_kwargs": either(_NONE, _entries(eps=number(1), elementwise_affine=_FLAG)),
    "block_type": either(_NONE, _WORD),
    "qk_norm": _FLAG,
    "scaled_cosine_attn": _FLAG,
    "scale_heads": _FLAG,
    "scale_attn_inner": _FLAG,
    "scale_attn": _FLAG,
    "scale_fc": _FLAG,
}
_VISION: dict[str, Check] = {
    **_TOWER,
    "layers": either(_LAYERS, some(_LAYERS, 4, 4)),
    "head_width": _WIDTH,
    "patch_size": either(_NONE, _SIDE),
    "image_size": _SIDES,
    "patch_dropout": number(1),
    "attentional_pool": either(_FLAG, _WORD),
    "attn_pooler_queries": whole(1, 65_536),
    "attn_pooler_heads": whole(1, 1024),
    "no_ln_pre": _FLAG,
    "pos_embed_type": _WORD,
    # Never by a prefix, with which timm reads a folder or a second repository.
    "timm_model_name": either(_NONE, matching(r"[a-z0-9_]+(\.[a-z0-9_]+)?")),
    "timm_model_pretrained": _FLAG,
    "timm_pool": _WORD,
    "timm_proj": either(_NONE, _WORD),
    "timm_proj_bias": _FLAG,
    "timm_drop": number(1),
    "timm_drop_path": either(_NONE, number(1)),
}
_TEXT: dict[str, Check] = {
    **_TOWER,
    "layers": _LAYERS,
    "heads": whole(1, 1024),
    "context_length": whole(1, 65_536),
    "vocab_size": _TOKEN,
    # Says no more than that the tokenizer is one of transformers'; it is read from the checkpoint's own folder.
    "hf_tokenizer_name": either(_NONE, matching(r"[\w./-]{0,200}")),
    "tokenizer_mode": either(_NONE, one_of("", "clips")),
    "tokenizer_kwargs": either(
        _NONE, _entries(clean=one_of("lower", "whitespace", "canonicalize"), strip_sep_token=_FLAG)
    ),
    "embed_cls": _FLAG,
    "pad_id": _TOKEN,
    "eos_id": _TOKEN,
    "no_causal_mask": _FLAG,
    "proj_bias": _FLAG,
    "proj_type": _WORD,
}
_MULTIMODAL: dict[str, Check] = {
    **_TEXT,
    "dim_head": _WIDTH,
    "n_queries": whole(1, 65_536),
    "attn_pooler_heads": whole(1, 1024),
}
_MODEL: dict[str, Check] = {
    "embed_dim": _WIDTH,
    "vision_cfg": lambda value: isinstance(value, dict),
    "text_cfg": lambda value: isinstance(value, dict),
    "multimodal_cfg": lambda value: isinstance(value, dict),
    "quick_gelu": _FLAG,
    "custom_text": _FLAG,
    "init_logit_scale": number(1000),
    "init_logit_bias": either(_NONE, number(1000)),
    "nonscalar_logit_scale": _FLAG,
}
_PREPROCESS: dict[str, Check] = {
    "size": _SIDES,
    "mode": one_of("RGB"),
    "mean": either(_NONE, _COLOR),
    "std": either(_NONE, _COLOR),
    "interpolation": either(_NONE, one_of("bicubic", "bilinear", "nearest", "random")),
    "resize_mode": either(_NONE, one_of("shortest", "longest", "squash")),
    "fill_color": whole(0, 255),
}


def checked(model_id: str, content: Any) -> dict[str, Any]:
    """What of the file is needed. Raises NotFound for what is not known, or names a second repository."""
    model = content.get("model_cfg") if isinstance(content, dict) else None
    check_entries(model_id, NAME, model, _MODEL)
    assert isinstance(model, dict)
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
        raise refuse(model_id, f"its {NAME} is damaged")
    if other := model["text_cfg"].get("hf_model_name"):
        raise refuse(
            model_id, f"its tower for texts is that of {str(other)[:80]!r}, and no second repository is followed"
        )
    text = {key: value for key, value in model["text_cfg"].items() if not key.startswith(("hf_model_", "hf_p"))}
    for name, part, allowed in (
        ("vision_cfg", model["vision_cfg"], _VISION),
        ("text_cfg", text, _TEXT),
        ("multimodal_cfg", model.get("multimodal_cfg", {}), _MULTIMODAL),
    ):
        check_entries(model_id, f"{NAME} ({name})", part, allowed)
    prepares = content.get("preprocess_cfg") or {}
    if isinstance(prepares, dict):
        # OpenCLIP itself passes over others.
        prepares = {key: value for key, value in prepares.items() if key in _PREPROCESS}
    check_entries(model_id, f"{NAME} (preprocess_cfg)", prepares, _PREPROCESS)
    vision = {**model["vision_cfg"], "timm_model_pretrained": False}
    return {"model_cfg": {**model, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": prepares}
