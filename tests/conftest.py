"""Settings for all tests: hypothesis tries the same examples every time, so that a red run is red again.

`HYPOTHESIS_PROFILE=explore pytest` looks for new ones.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
