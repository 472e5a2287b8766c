"""SavedModel folders, through TensorFlow in a process of its own (Keras here runs on torch, and one process has one
backend).

A SavedModel that Keras 3 exported holds weights and a frozen computation, but no layers; one that Keras 2 saved holds
the layers too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from luthier.errors import MissingExtra, ModelError

_WEIGHTS = """
import sys, numpy, tensorflow
found = tensorflow.saved_model.load(sys.argv[1]).variables
numpy.savez(sys.argv[2], names=numpy.array([v.name for v in found]), **{str(i): v.numpy() for i, v in enumerate(found)})
"""
_LEGACY = """
import json, sys, h5py, tf_keras
tf_keras.models.load_model(sys.argv[1], compile=False).save(sys.argv[2])
def walk(node):
    if isinstance(node, dict):
        if node.get("class_name") == "DepthwiseConv2D":  # Keras 2 wrote a field there that Keras 3 refuses
            node["config"].pop("groups", None)
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        walk(inner)
with h5py.File(sys.argv[2], "r+") as file:
    config = json.loads(file.attrs["model_config"])
    walk(config)
    file.attrs["model_config"] = json.dumps(config)
"""
_EXPORT = """
import sys, keras
keras.models.load_model(sys.argv[1], compile=False).export(sys.argv[2], verbose=False)
"""


def saved_weights(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Names and values of a SavedModel's variables, in the order of the layers."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "weights.npz"
        _run(_WEIGHTS, folder, file, what=f"the SavedModel {folder} cannot be read")
        with np.load(file, allow_pickle=False) as found:
            return [(str(name), found[str(at)]) for at, name in enumerate(found["names"])]


@contextlib.contextmanager
def legacy_to_h5(folder: Path) -> Iterator[Path]:
    """A SavedModel that Keras 2 saved, as a file that Keras 3 opens; ModelError for one without layers."""
    if not (folder / "keras_metadata.pb").is_file():
        raise ModelError(f"the SavedModel {folder} holds weights and a frozen computation but no layers that could be "
                         f"trained; name its network as well (keras:NAME@{folder.name}) or save the model as .keras")
    _need("tf_keras")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "model.h5"
        _run(_LEGACY, folder, file, what=f"the SavedModel {folder} cannot be read")
        yield file


def to_saved_model(file: Path, folder: Path) -> None:
    """A `.keras` file as a SavedModel folder for TensorFlow Serving."""
    _run(_EXPORT, file, folder, what=f"{file.name} cannot be written as a SavedModel")


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"a SavedModel is read and written by TensorFlow, and the Python package '{package}' is not "
                           "installed; install it with: pip install 'luthier[tensorflow]'")


def _run(script: str, source: Path, target: Path, *, what: str) -> None:
    _need("tensorflow")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", script, str(source), str(target)], env=environment,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise ModelError(f"{what}: {lines[-1] if lines else f'exit status {done.returncode}'}")
