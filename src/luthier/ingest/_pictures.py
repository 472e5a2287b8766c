"""Text recognition inside a worker process: one page of one file from picture to a record that is cached."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from luthier.ingest._files import File
from luthier.ingest._read import Limits, Pictures, Portable, load_readers, source_of
from luthier.ingest.base import Refused
from luthier.ingest.ocr.base import EngineFailed, Ocr


@dataclass(frozen=True)
class Page:
    """One page to read."""

    file: File
    kind: str
    """The reader that draws it."""
    number: int


def read_picture(readers: tuple[Portable, ...], limits: Limits, pictures: Pictures, ocr: dict[str, Any],
                 local: str | None, page: Page) -> dict[str, Any]:
    """Lines, pieces and notes of a page as plain data, or reason and detail where it could not be read."""
    from pathlib import Path

    from luthier.ingest.ocr.page import read_page

    spec = Ocr.model_validate(ocr, context={"local": Path(local) if local else None})
    try:
        source = source_of(page.file, limits, pictures)
        reader = next(one for one in load_readers(readers) if one.kind == page.kind)
        read = read_page(reader.picture(source, page.number, spec.dpi), spec)
    except Refused as refused:
        return {"reason": refused.reason, "detail": refused.detail}
    except EngineFailed as failed:
        return {"reason": "ocr-failed", "detail": str(failed)}
    except ImportError as error:
        return {"missing": (error.name or str(error)).partition(".")[0]}
    except OSError as error:
        return {"reason": "unreadable", "detail": error.strerror or str(error)}
    return asdict(read)


