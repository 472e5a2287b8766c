"""Whether an error may pass by itself, so that trying again is worth while."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

from luthier.errors import GateRefused, LuthierError
from luthier.watch.process import PASSING, Answer

_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EBUSY,
            errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ESTALE}
_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def may_pass(error: BaseException) -> bool:
    """Full disk, too little memory, a lock that another process holds, a network that does not answer: in the error
    or in any that it came from. A model's and a user's mistake stay."""
    for one in _chain(error):  # a lock's Timeout is a TimeoutError
        if isinstance(one, MemoryError | ConnectionError | TimeoutError):
            return True
        if isinstance(one, OSError) and one.errno in _PASSING:
            return True
        if isinstance(one, RuntimeError) and any(words in str(one).lower() for words in _MEMORY):
            return True
    return False


def describe(error: BaseException) -> Answer:
    """The answer that an error makes."""
    if isinstance(error, GateRefused):
        return Answer("refused", {"error": str(error)})
    text = str(error) if isinstance(error, LuthierError) else f"{type(error).__name__}: {error}"
    facts: dict[str, object] = {"error": text}
    if not isinstance(error, LuthierError):  # a bug of ours: keep the trace for a report
        facts["trace"] = "".join(traceback.format_exception(error))[-4000:]
    return Answer(PASSING if may_pass(error) else "failed", facts)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from; `from None` hides the latter from people, not from here."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
