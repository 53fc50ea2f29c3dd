"""The log of the HTTP server, without what strangers could write into it."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError


class _NoBadRequests(logging.Filter):
    """Drops requests that are not HTTP: the peer is told with 400, and the record would quote what it sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | RequestPayloadError)


def http_logger() -> logging.Logger:
    """The logger that aiohttp is given."""
    logger = logging.getLogger("splitllm.server.http")
    if not logger.filters:
        logger.addFilter(_NoBadRequests())
    return logger
