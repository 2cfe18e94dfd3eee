"""The worker's Prometheus metrics, all in one place; docs/metrics.md describes each (a test checks that it does)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from schemas.results import ResultRow

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_LATENCY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WAITS = ("broker", "model", "store", "pack")


class Metrics:
    """Metrics of one worker.

    Args:
        registry: None makes one of its own, so that two workers of one process do not mix.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own = self.registry
        self.read = Counter("dapo_frames_read", "messages read, again after a rebalance", registry=own)
        self.read_bytes = Counter("dapo_frames_read_bytes", "bytes of messages read", registry=own)
        self.results = Counter(
            "dapo_results", "rows committed", ["camera", "result_state", "evaluation"], registry=own
        )
        self.defects = Counter("dapo_defects", "defect regions committed", ["type"], registry=own)
        self.reasons = Counter(
            "dapo_reasons", "rows committed that carry a reason code", ["reason_code"], registry=own
        )
        self.late = Counter(
            "dapo_results_late", "rows committed after their deadline", ["camera"], registry=own
        )
        self.gaps = Counter(
            "dapo_sequence_gaps", "numbers missing in a camera's sequence", ["camera"], registry=own
        )
        self.lost = Counter(
            "dapo_frames_lost", "frames that Kafka deleted before they were read", registry=own
        )
        self.restarts = Counter("dapo_reading_restarts", "times that reading started over", registry=own)
        self.read_again = Counter(
            "dapo_frames_read_again", "frames in flight that were forgotten", registry=own
        )
        self.in_flight = Gauge("dapo_frames_in_flight", "frames read and not yet committed", registry=own)
        self.oldest = Gauge(
            "dapo_oldest_in_flight_seconds", "age of the oldest frame in flight", registry=own
        )
        self.lag = Gauge("dapo_lag_frames", "frames on the topic that are not read yet", registry=own)
        self.waiting = Gauge("dapo_waiting", "1 while a server is waited for", ["what"], registry=own)
        self.latency = Histogram(
            "dapo_latency_seconds", "from capture to result", buckets=_LATENCY_SECONDS, registry=own
        )
        self.stages = Histogram(
            "dapo_stage_seconds",
            "time of a frame in a stage",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=own,
        )
        self.configuration = Info("dapo_configuration", "encoder and prompt pack in force", registry=own)
        self.behind = Gauge(
            "dapo_pack_behind", "1 while another pack is in force than the registry's champion", registry=own
        )
        self.switches = Counter("dapo_pack_switches", "times that another pack came in force", registry=own)
        for what in WAITS:
            self.waiting.labels(what).set(0)

    def published(self, row: ResultRow, camera: str, gap: int) -> None:
        """Count one committed row."""
        self.results.labels(camera, row.result_state, row.evaluation).inc()
        for defect in row.defects or ():
            self.defects.labels(defect["type"]).inc()
        if row.reason_code:
            self.reasons.labels(row.reason_code).inc()
        if row.is_late:
            self.late.labels(camera).inc()
        if gap:
            self.gaps.labels(camera).inc(gap)
        if row.captured_at is not None:
            self.latency.observe(max(0.0, (row.finished_at - row.captured_at).total_seconds()))
        for stage in ("decode", "infer", "judge"):
            took = getattr(row, f"{stage}_ms")
            if took is not None:
                self.stages.labels(stage).observe(took / 1000)

    def standing(self, in_flight: int, oldest_ms: float | None, lag: int | None, waiting: str) -> None:
        """Set the gauges."""
        self.in_flight.set(in_flight)
        self.oldest.set((oldest_ms or 0) / 1000)
        if lag is not None:
            self.lag.set(lag)
        for what in WAITS:
            self.waiting.labels(what).set(what == waiting)
