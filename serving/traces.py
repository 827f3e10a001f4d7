"""Spans of a decision across engine, router and boxes, sent by OTLP where OTEL_EXPORTER_OTLP_ENDPOINT names a collector."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from serving.logs import TRACE

NAME = "promolift"
FORWARDED = "(?i)^(traceparent|tracestate|x-request-id)$"
"""Headers that the router must pass on to the steps (PROPAGATE_HEADERS); KServe's default passes none."""


def start(service: str, processor: SpanProcessor | None = None) -> None:
    """Send the spans of this process under the name of `service`, if a collector is named or a `processor` is given."""
    if processor is None and not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    if processor is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (only where it is used)

        processor = BatchSpanProcessor(OTLPSpanExporter())
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, traceparent: str = "") -> Iterator[None]:
    """One span, below the caller's where `traceparent` says so; its trace is in every log line meanwhile."""
    parent = extract({"traceparent": traceparent}) if traceparent else None
    with trace.get_tracer(NAME).start_as_current_span(name, context=parent) as current:
        known = current.get_span_context()
        token = TRACE.set(format(known.trace_id, "032x") if known.is_valid else traceparent.split("-")[1] if "-" in traceparent else "")
        try:
            yield
        finally:
            TRACE.reset(token)


def headers() -> dict[str, str]:
    """What the next step must be sent to go on with this span."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier
