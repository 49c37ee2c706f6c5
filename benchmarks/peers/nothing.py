"""A configuration file of Pixano's, with a detector that does nothing, and one that decodes its image and no more.

Pixano serves it, and so does this project, as it is.
"""

from __future__ import annotations

from pixano_inference.configs import DeploymentConfig, ModelConfig
from pixano_inference.models import DetectionModel
from pixano_inference.schemas import DetectionInput, DetectionOutput
from pixano_inference.utils.media import convert_string_to_image


class Nothing(DetectionModel):
    def load_model(self) -> None:
        """There is nothing to load."""

    def predict(self, input: DetectionInput) -> DetectionOutput:
        return DetectionOutput(boxes=[[1, 1, 5, 5]], scores=[0.5], classes=["nothing"])


class Decoded(Nothing):
    def predict(self, input: DetectionInput) -> DetectionOutput:
        convert_string_to_image(input.image).load()
        return super().predict(input)


# One replica, as this project has, and a queue that holds all clients; by default Pixano is slower.
ALONE = DeploymentConfig(min_replicas=1, max_replicas=1, max_ongoing_requests=64)
models = [
    ModelConfig(name="nothing", model_class=Nothing, deployment=ALONE),
    ModelConfig(name="decoded", model_class=Decoded, deployment=ALONE),
]
