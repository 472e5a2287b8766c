"""Settings for all tests: hypothesis tries the same examples every time, so that a red run is red again.

`HYPOTHESIS_PROFILE=explore pytest` looks for new ones.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

LONGEST = "test_months_go_through_the_watch_killed_or_not"


def pytest_collection_modifyitems(items: list) -> None:
    """The longest test begins first, or one worker would do it alone at the end."""
    items.sort(key=lambda item: not item.nodeid.endswith(LONGEST))
