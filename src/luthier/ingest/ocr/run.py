"""All pictures of a run: read once each in worker processes, remembered by content, merged into their documents."""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import MissingExtra
from luthier.executors import Executor, Failure, Local
from luthier.ingest.ocr.base import VERSION, Ocr
from luthier.ingest.ocr.corrections import Corrections, error_rates
from luthier.ingest.ocr.merge import Tally, merge
from luthier.progress import Progress
from luthier.queues import write_review
from luthier.store import Store, canonical
from luthier.types import decode_document, digest, encode, write_jsonl

if TYPE_CHECKING:
    from luthier.ingest._files import File
    from luthier.ingest._read import Limits, Pictures
    from luthier.ingest.base import Ingest

PAGES = "ocr_pages.jsonl"


def recognise(files: Sequence[File], records: dict[str, dict[str, Any]], spec: Ingest, readers: Mapping[str, Any],
              limits: Limits, pictures: Pictures, corrections: Corrections, *, store: Store, progress: Progress,
              executor: Executor | None) -> Tally:
    """Complete the records whose `wanted` names pages; a file that gives no text then becomes one with a reason."""
    wanting = [file for file in files if records[file.name].get("wanted")]
    tally = Tally()
    pages = _read_pages(wanting, records, spec, readers, limits, pictures, tally, store, progress, executor) \
        if wanting else {}
    for file in wanting:
        records[file.name] = _merged(file, records[file.name], pages, spec, corrections, tally)
    return tally


def summary_of(tally: Tally, corrections: Corrections) -> dict[str, Any]:
    """What the artifact's summary says of text recognition; empty when no picture was read."""
    if not tally.pages and not tally.failed:
        return {}
    return {"ocr": {
        "pages": tally.pages, "read_now": tally.fresh, "seconds": round(tally.seconds, 1), "failed": tally.failed,
        "lines": tally.lines, "handwritten": tally.handwritten, "in_doubt": tally.in_doubt,
        "engines": dict(Counter(page["about"]["engine"] for page in tally.told)),
        "decided": len(corrections.used), "decided_elsewhere": len(corrections.by_id) - len(corrections.used),
        "error_rate": {key: value for key, value in error_rates(tally.judged).items() if key != "sources"},
    }}


def write_tally(folder: Path, tally: Tally) -> None:
    """`review.jsonl`, the pages with their lines, and error rates by source, beside the documents."""
    if tally.told:
        write_review(folder, tally.items)
        write_jsonl(folder / PAGES, tally.told)
    if rates := error_rates(tally.judged):
        (folder / "ocr_error_rates.json").write_text(json.dumps(rates, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _read_pages(files: Sequence[File], records: Mapping[str, Mapping[str, Any]], spec: Ingest,
                readers: Mapping[str, Any], limits: Limits, pictures: Pictures, tally: Tally, store: Store,
                progress: Progress, executor: Executor | None) -> dict[tuple[str, int], dict[str, Any]]:
    from luthier.ingest._pictures import Page, read_picture
    from luthier.ingest._read import portable

    cache, ocr = store.cache("ocr"), spec.ocr
    plain = ocr.dump()
    rules = canonical([VERSION, ocr.identity(), plain["engine"], plain["handwriting"], ocr.dpi,
                       float(ocr.max_megapixels)])

    def key(page: Page) -> str:
        reader = readers[page.kind]
        return digest("page", rules, canonical([reader.dump(), reader.version]), page.file.sha256, str(page.number),
                      length=40)

    wanted = [Page(file, records[file.name]["kind"], want["page"]) for file in files
              for want in records[file.name]["wanted"]]
    found: dict[tuple[str, int], dict[str, Any]] = {}
    fresh = []
    for page in wanted:
        known = cache.get(key(page))
        if known is None:
            fresh.append(page)
        else:
            found[page.file.name, page.number] = json.loads(known)
    engines = [engine for engine in (ocr.engine, ocr.handwriting) if engine is not None]
    local = next((folder for _, _, folder in portable(engines) if folder), None)
    work = functools.partial(read_picture, portable(readers.values()), limits, pictures, plain, local)
    executor = executor or Local(_num_workers(spec.workers, ocr, len(fresh)))
    began = time.monotonic()
    with progress.track("read pictures", len(wanted), unit="pages", done=len(wanted) - len(fresh)) as bar:
        results = executor.map(work, fresh, timeout_s=ocr.timeout_s, memory_mb=ocr.memory_mb) if fresh else ()
        for page, result in results:
            bar.advance(1)
            if isinstance(result, Failure):
                result = {"reason": result.reason, "detail": result.detail}
            elif "missing" in result:
                raise MissingExtra(f"reading pictures needs the Python package '{result['missing']}'; install it with: "
                                   "pip install 'luthier[ocr]'")
            elif result.get("reason") not in ("ocr-failed", "changed", "unreadable"):
                cache.put(key(page), json.dumps(result).encode())
            found[page.file.name, page.number] = result
    tally.fresh = sum("reason" not in found[page.file.name, page.number] for page in fresh)
    tally.seconds = time.monotonic() - began
    return found


def _num_workers(asked: int, ocr: Ocr, pages: int) -> int:
    """Pages read at the same time: as many as are asked for, as there are, and as fit into free memory."""
    processors = Local(asked).workers
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) / 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        free = 2 * ocr.engine_mb
    return max(1, min(processors, pages, int(free / ocr.engine_mb)))


def _merged(file: File, record: Mapping[str, Any], pages: Mapping[tuple[str, int], dict[str, Any]], spec: Ingest,
            corrections: Corrections, tally: Tally) -> dict[str, Any]:
    wanted = record["wanted"]
    here = {want["page"]: pages[file.name, want["page"]] for want in wanted}
    mine = Tally()
    documents = []
    for number, line in enumerate(record["documents"]):
        document = decode_document(json.loads(line))
        inside = [want for want in wanted if want["document"] == number]
        if inside:
            document = merge(replace(document, path=file.name), inside, here, spec.ocr, corrections, mine,
                             drop_bad=spec.bad_pages == "drop")
        documents.append(document)
    words = sum(len(span.text.split()) for document in documents for span in document.spans)
    if words < spec.min_words:
        failed = [page for page in here.values() if "reason" in page]
        if failed and not mine.pages:
            return {"kind": record["kind"], "reason": failed[0]["reason"], "detail": failed[0]["detail"]}
        tally.failed += mine.failed
        return {"kind": record["kind"], "reason": "empty", "detail": "no text found in the picture"
                if len(here) == 1 else f"no text found in {len(here)} pictures"}
    for name, value in vars(mine).items():
        setattr(tally, name, getattr(tally, name) + value)
    return {**record, "documents": [encode(document) for document in documents], "words": words,
            "warnings": sum(len(document.meta.get("page_warnings", ())) for document in documents)}
