"""The beat on `inspection.status`: one a second for each worker and line, so that a dead line differs from a good one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from schemas.columns import TIME, Contract, column


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """How one worker stands with one line. Counters grow from `started_at` on and restart with the worker."""

    at: datetime = column(TIME, "when it was said", null=False)
    worker_id: str = column(pa.utf8(), "worker; the same after a restart of its slot", null=False)
    line_id: str | None = column(pa.utf8(), "line; null where the worker has met none yet")
    state: str = column(
        pa.utf8(), "running, waiting (a server is away; nothing is lost) or stopping", null=False
    )
    waiting_for: str | None = column(pa.utf8(), "broker, model, store or pack; null unless waiting")
    started_at: datetime = column(TIME, "when the worker started: all counters are since then", null=False)
    frames_in: int = column(pa.int64(), "distinct frames read", unit="frames", null=False)
    completed: int = column(pa.int64(), "rows published as Completed", unit="frames", null=False)
    failed: int = column(
        pa.int64(), "rows published as Failed, each also a dead letter", unit="frames", null=False
    )
    aborted: int = column(pa.int64(), "rows published as Aborted: declared drops", unit="frames", null=False)
    late: int = column(pa.int64(), "rows published with `is_late`", unit="frames", null=False)
    gaps: int = column(
        pa.int64(), "numbers missing in the cameras' sequences: lost before Kafka", unit="frames", null=False
    )
    lost: int = column(
        pa.int64(), "frames that Kafka deleted before they were read, of all lines", unit="frames", null=False
    )
    in_flight: int = column(
        pa.int64(), "frames read and not yet answered, of all lines", unit="frames", null=False
    )
    lag: int | None = column(
        pa.int64(), "frames on the topic and not yet read, of all lines; null where unknown", unit="frames"
    )
    oldest_ms: float | None = column(
        pa.float64(),
        "age since capture of the oldest frame in flight, of all lines; null where none is",
        unit="ms",
    )
    mode: str = column(pa.utf8(), "capacity (never drops, may lag) or realtime (may drop)", null=False)
    configuration_hash: str | None = column(
        pa.utf8(),
        "SHA-256 of the prompt pack; null until it is known",
        opc="ResultMetaData.InternalConfigurationId",
    )


CONTRACT = Contract.of(StatusRow, "status", 1)
