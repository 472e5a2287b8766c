"""What `/metrics` tells Prometheus. A registry of its own, so that several servers in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Metrics:
    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("luthier_requests", "Requests by route, model and HTTP status",
                                ["route", "model", "status"], registry=registry)
        self.seconds = Histogram("luthier_request_seconds", "Seconds from request to the end of the answer",
                                 ["model"], buckets=SECONDS, registry=registry)
        self.first = Histogram("luthier_first_text_seconds", "Seconds from request to the first text of the answer",
                               ["model"], buckets=SECONDS, registry=registry)
        self.prompt_tokens = Counter("luthier_prompt_tokens", "Tokens of prompts", ["model"], registry=registry)
        self.output_tokens = Counter("luthier_output_tokens", "Tokens generated", ["model"], registry=registry)
        self.cancelled = Counter("luthier_cancelled", "Requests whose client left before the end", ["model"],
                                 registry=registry)
        Gauge("luthier_running", "Requests in the batch", registry=registry).set_function(running)
        Gauge("luthier_waiting", "Requests waiting for a place in the batch", registry=registry).set_function(waiting)

    def text(self) -> bytes:
        return generate_latest(self.registry)
