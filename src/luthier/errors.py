"""One tree of errors for people: every message says what was found, where, and what to do.

The command line prints the message without a traceback and exits with `exit_code`.
All of them survive pickling, so a worker process can raise them too.
"""

from __future__ import annotations


class LuthierError(Exception):
    """A problem the user can act on. `str(error)` is one clear sentence or a short list of them."""

    exit_code = 1


class UsageError(LuthierError):
    """The command line, a path or an argument is wrong."""

    exit_code = 2


class SpecError(LuthierError):
    """The project file or a spec is wrong: unknown key, wrong type, impossible value."""

    exit_code = 2


class MissingExtra(LuthierError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 2


class DataError(LuthierError):
    """The data cannot be used: nothing readable, no examples, no test rows, a bad row in strict mode."""

    exit_code = 4


class ModelError(LuthierError):
    """A model source is missing, unreadable or unfit for the task."""

    exit_code = 5


class ContractError(LuthierError):
    """A point of the training contract is violated; training stops before it does harm."""

    exit_code = 6


class GateRefused(LuthierError):
    """A release did not pass its gate."""

    exit_code = 7


class StoreError(LuthierError):
    """The store cannot be written or read: full disk, lock held by another process, damaged artifact."""

    exit_code = 8


class ServeError(LuthierError):
    """The server cannot start or a request cannot be served: busy port, no release, queue full."""

    exit_code = 9


def need(module: str, *, extra: str):
    """Import an optional dependency by name, or say which extra of Luthier brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this step needs the Python package '{module.split('.')[0]}' ({error}); "
            f"install it with: pip install 'luthier[{extra}]'"
        ) from None
