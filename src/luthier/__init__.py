"""Luthier: from a company's documents to a fine-tuned model that is tested, compared, released and served.

Importing this package is cheap; each stage lives in its own package: `from luthier.train import train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.store import Artifact, Store
    from luthier.task import Task

__all__ = ["Artifact", "Store", "Task"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """The three nouns that every script needs, loaded when they are asked for: `luthier --help` needs none of them."""
    import importlib

    home = {"Artifact": "luthier.store", "Store": "luthier.store", "Task": "luthier.task"}.get(name)
    if home is None:
        raise AttributeError(f"module 'luthier' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)
