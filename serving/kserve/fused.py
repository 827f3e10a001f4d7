"""The four boxes in one process: an envelope in, an envelope out, as the graph answers it (a test holds the two equal)."""

import gc
from dataclasses import replace

from promolift.contracts.decisions import NODES, Envelope, Request
from promolift.settings import Settings
from serving.kserve.boxes import Sources, build
from serving.kserve.rollout import switched
from serving.kserve.stamp import Box


class FusedGraph:
    """The graph's Sequence without its hops. One thread at a time: the model's interpreter allows no more."""

    def __init__(self, boxes: tuple[Box, ...]) -> None:
        self._boxes = boxes

    def __call__(self, request: Request, received_at: str | None = None) -> Envelope:
        """The decided envelope. Raises ConflictError for a request id used with other parameters."""
        envelope = Envelope(request, received_at=received_at)
        for box in self._boxes:
            envelope = box(envelope)
        return envelope


def fused(sources: Sources, settings: Settings) -> FusedGraph:
    """All boxes of one deployment. Raises as `build` does."""
    boxes = tuple(_box(name, sources, settings) for name in NODES)
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look at it again in the middle of a decision
    return FusedGraph(boxes)


def _box(name: str, sources: Sources, settings: Settings) -> Box:
    box = build(name, sources, settings)
    if name != "predictor":
        return box
    # The deployment's digest is the champion's; a candidate has its own.
    free = settings.model_copy(update={"model_sha256": ""})
    return switched(box, sources.rollout, lambda model: build(name, replace(sources, model=model), free))
