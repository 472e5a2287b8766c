"""Settings for all tests: hypothesis tries the same examples every time, so that a red run is red again.

`HYPOTHESIS_PROFILE=explore pytest` looks for new ones.
"""

import os

from hypothesis import settings

# Some environments forbid byte code. A user's machine has it from the second command on, and so have the commands that
# tests run: each would compile all modules anew, which is a third of its time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

LONGEST = "test_months_go_through_the_watch_killed_or_not"


def pytest_collection_modifyitems(items: list) -> None:
    """The longest test begins first, or one worker would do it alone at the end."""
    items.sort(key=lambda item: not item.nodeid.endswith(LONGEST))
