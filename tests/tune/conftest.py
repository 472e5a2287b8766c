"""`toy` is imported by its name, so that worker processes can import it too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
