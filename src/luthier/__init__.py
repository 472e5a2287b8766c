"""Luthier: from a company's documents to a fine-tuned model that is tested, compared, released and served.

Importing this package is cheap; each stage lives in its own package: `from luthier.train import train`.
"""

from luthier.store import Artifact, Store
from luthier.task import Task

__all__ = ["Artifact", "Store", "Task"]
__version__ = "0.1.0"
