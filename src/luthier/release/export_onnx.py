"""`model.onnx`: the released network for other runtimes, checked with ONNX Runtime against torch.

Inputs: texts `input_ids` and `attention_mask`, int64 [rows, tokens], both axes free; images `pixels`, float32
[rows, 3, side, side], normalised as image_processor.json says, rows free. Output: `logits` (embed: unit vectors), not
yet divided by the temperature.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import ContractError, ModelError, need
from luthier.types import Example

if TYPE_CHECKING:
    import torch

    from luthier.adapt.network import LabelModel

LIMIT = 1e-4
"""Greatest difference of a logit between ONNX Runtime and torch, relative to the largest logit."""
OPSET = 20


def export_onnx(model: LabelModel, file: Path, examples: Sequence[Example]) -> dict[str, Any]:
    """Write and check the file; the figures go into parity.json.

    MissingExtra without onnx, onnxscript and onnxruntime; ModelError for a network that torch cannot export;
    ContractError when ONNX Runtime answers otherwise than torch on the examples, one by one and in a padded batch.
    """
    import torch

    from luthier.adapt.columns import ProgressiveNetwork

    if isinstance(model.module, ProgressiveNetwork):
        raise ModelError("release.onnx: a progressive network sends each row to a column of its own, which an ONNX "
                         "graph cannot do; set release.onnx to false")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, extra="onnx")
    rows = model.rows([replace(example, target=None) for example in examples], targets=False)
    if len({row.size for row in rows}) == 1 and model.task.type != "image":  # lengths must differ for a free axis
        row = rows[0]
        rows.append(row.but(data=row.data + row.data[1:2] * 3, size=row.size + 3))
    inputs = full_inputs(model, rows if len(rows) > 1 else rows * 2)
    names = [*inputs]
    text = "input_ids" in inputs
    free: Any = {0: torch.export.Dim("rows"), **({1: torch.export.Dim("tokens")} if text else {})}
    network = _network(model, names)
    try:
        with _silent(), torch.no_grad():
            torch.onnx.export(network, tuple(inputs.values()), str(file), input_names=names, output_names=["logits"],
                              dynamic_shapes=(tuple(free for _ in names),), opset_version=OPSET, dynamo=True,
                              external_data=False, verbose=False)
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError, NotImplementedError) as error:
        cause = error.__cause__ or error  # the exporter's own text only tells at which of its steps it failed
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ModelError(f"release.onnx: this network cannot be exported to ONNX ({reason}); set release.onnx to "
                         "false") from None
    return check_onnx(model, file, rows)


def check_onnx(model: LabelModel, file: Path, rows: Sequence[Any]) -> dict[str, Any]:
    """ONNX Runtime against torch, in one padded batch and row by row; ContractError beyond the limit."""
    import torch

    session = open_onnx(file)
    network = model.module.eval()
    worst, scale, alike, count = 0.0, 1e-12, 0, 0
    for part in ([*rows], *([row] for row in rows)):
        inputs = full_inputs(model, part)
        with torch.no_grad():
            wanted = network(inputs).float().numpy()
        given = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
        for a, b, row in zip(wanted, given, part):
            a, b = (a[: row.size], b[: row.size]) if a.ndim == 2 else (a, b)  # what stands in for pads tells nothing
            worst, scale = max(worst, float(np.abs(a - b).max())), max(scale, float(np.abs(a).max()))
            alike += np.array_equal(a.argmax(-1), b.argmax(-1))
            count += 1
    if worst / scale > LIMIT:
        raise ContractError(f"contract point 11 (parity): model.onnx answers otherwise than the released model: logits "
                            f"differ by {worst / scale:.2e} of the largest (limit {LIMIT:.0e}); set release.onnx to "
                            "false")
    return {"max_relative_difference": worst / scale, "decided_alike": int(alike), "asked": count, "opset": OPSET,
            "megabytes": round(file.stat().st_size / 1e6, 3),
            "sentence": f"ONNX (opset {OPSET}, any number of rows"
                        + ("" if model.task.type == "image" else ", any length")
                        + f"): {alike} of {count} answers of ONNX Runtime decide as torch does, logits differ by at "
                          f"most {worst / scale:.1e} of the largest"}


def full_inputs(model: LabelModel, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    """A batch with every input that the exported network takes, the mask among them."""
    import torch

    inputs = model.processor.batch(rows)
    if "input_ids" in inputs:
        inputs = {"input_ids": inputs["input_ids"],
                  "attention_mask": inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))}
    return {name: value.contiguous() for name, value in inputs.items()}


def open_onnx(file: Path, *, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU. ModelError for a file that it cannot run."""
    runtime = need("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except RuntimeError as error:  # ONNX Runtime's own errors are kinds of it
        raise ModelError(f"{file} cannot be run by ONNX Runtime: {error}") from None


def _network(model: LabelModel, names: Sequence[str]) -> torch.nn.Module:
    """The network with tensors for arguments instead of a dictionary."""
    from torch import nn

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model.module

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.inner(dict(zip(names, values)))

    return Exported().eval()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter writes its steps to stdout, which is for data."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
