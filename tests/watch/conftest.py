import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the kits beside these tests


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """A project with one release; tests work on copies."""
    from update_kit import make, run

    folder = make(tmp_path_factory.mktemp("first"))
    run(folder)
    return folder


@pytest.fixture
def project(first, tmp_path):
    shutil.copytree(first, tmp_path / "p")
    return tmp_path / "p"
