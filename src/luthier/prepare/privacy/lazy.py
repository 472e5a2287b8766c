"""Regular expressions that are compiled when they are first used: every command declares all rules, few run them."""

from __future__ import annotations

import re
from typing import Any, cast


class _Lazy:
    def __init__(self, pattern: str, flags: int):
        self._given = (pattern, flags)

    def __getattr__(self, name: str) -> Any:  # asked only for what is not there yet
        if name.startswith("__"):
            raise AttributeError(name)
        found = re.compile(*self._given)
        for method in ("search", "match", "fullmatch", "finditer", "findall", "sub", "subn", "split", "pattern"):
            setattr(self, method, getattr(found, method))
        return getattr(found, name)


def lazy(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Like `re.compile`, for expressions of a module; an error in one shows at its first use."""
    return cast("re.Pattern[str]", _Lazy(pattern, int(flags)))
