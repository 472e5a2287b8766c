"""Laws of the architecture: layers point one way, and CI's torch is the CPU build that was asked for."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_layers_point_one_way():
    done = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_dependency_replaced_the_installed_torch_by_another():
    """Dependencies that want torchvision or a newer torch pull gigabytes; none of ours may."""
    import importlib.metadata as metadata

    names = {dist.metadata["Name"].lower() for dist in metadata.distributions() if dist.metadata["Name"]}
    assert not names & {"torchvision", "torchaudio", "llama-cpp-python"}
    from packaging.version import Version

    assert Version(metadata.version("torch")) >= Version("2.6")
