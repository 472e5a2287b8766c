"""Settings of serving a model with labels: the section `serve.labels` of luthier.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.spec import Spec


class LabelServe(Spec):
    """How classifiers, taggers, embedders and image models answer."""

    runtime: Literal["torch", "onnx"] = "torch"
    """What computes: torch, or ONNX Runtime where the release holds model.onnx (release.onnx)."""
    threads: int | None = Field(default=None, ge=1)
    """Processor threads for computing; null leaves torch its own number, and gives ONNX Runtime one."""
    batch_rows: int = Field(default=32, ge=1, le=1024)
    """Most rows, of any number of requests, that are computed together."""
    wait_ms: float = Field(default=2.0, ge=0, le=1000)
    """Milliseconds that a first row waits for others to be computed with it; while a batch is computed, the next one
    gathers anyhow."""
    max_inputs: int = Field(default=256, ge=1)
    """Texts or images in one request."""
    max_explained: int = Field(default=8, ge=1)
    """Inputs in one request that asks for explanations, which cost one to two hundred times an answer."""
    max_image_bytes: int = Field(default=20_000_000, ge=10_000)
    """Largest request body in bytes where the release reads images; elsewhere serve.max_body_bytes counts."""
    max_image_pixels: int = Field(default=50_000_000, ge=10_000)
    """Most pixels of an uploaded image; a small file can claim to be enormous."""
