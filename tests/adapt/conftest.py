import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the kits beside these tests

pytest.importorskip("torch")
