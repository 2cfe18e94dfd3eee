"""Structured logs: one JSON object a line on stderr, for whatever collects them."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter


def structured(level: int = logging.INFO) -> None:
    """Log as JSON lines: time, level, logger, message, and what is given as `extra` (frame_id, camera_id)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kafka").setLevel(logging.WARNING)  # its INFO is a line per fetch session
