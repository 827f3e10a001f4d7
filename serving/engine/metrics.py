"""What Prometheus reads of the engine: latency by box, reasons, what was degraded, budgets with their lambda, and the outbox's lag."""

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily
from redis.exceptions import RedisError

from promolift.contracts.engine import Answer
from promolift.policy.ledger import Ledger

BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.1, 0.25, 1.0)


class Metrics:
    """A registry of its own, so that two engines in one process do not mix."""

    def __init__(self, ledger: Ledger) -> None:
        self._registry = prometheus.CollectorRegistry()
        self._latency = prometheus.Histogram(
            "promolift_decision_seconds", "Time in a box, in all of them (total) and in the engine.", ["box"],
            buckets=BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._decisions = prometheus.Counter(
            "promolift_decisions", "Answers by what decided them.", ["reason", "bucket"], registry=self._registry
        )
        self._degraded = prometheus.Counter(
            "promolift_degraded", "Answers by what was not as it should be.", ["what"], registry=self._registry
        )
        self._registry.register(_LedgerCollector(ledger))

    def saw(self, answer: Answer) -> None:
        """Count one answer."""
        for box, ms in answer.timings_ms.items():
            self._latency.labels(box).observe(ms / 1000)
        self._decisions.labels(answer.reasons[0], answer.bucket).inc()
        for what in answer.degraded:
            self._degraded.labels(what).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        text: bytes = prometheus.generate_latest(self._registry)
        return text


class _LedgerCollector:
    """Reads the ledger when it is scraped; without Redis it has only `promolift_ledger_up` 0."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing before the first scrape: Redis may be down when it is registered."""
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        """Cents and lambda by budget, and what waits in the outbox."""
        try:
            budgets, lag = self._ledger.budgets(), int(self._ledger.client.xlen(self._ledger.stream))
        except (RedisError, OSError):
            return [GaugeMetricFamily("promolift_ledger_up", "Whether the ledger answers.", value=0)]
        cents = GaugeMetricFamily("promolift_budget_cents", "A budget's cents by state.", labels=["budget", "state"])
        price = GaugeMetricFamily("promolift_budget_lambda", "Price of a cent of the budget.", labels=["budget"])
        for name, budget in budgets.items():
            for state in ("total", "committed", "reserved", "headroom"):
                cents.add_metric([name, state], getattr(budget, state))
            price.add_metric([name], budget.price)
        outbox = GaugeMetricFamily("promolift_outbox_entries", "Entries that the decision log does not hold yet.", value=lag)
        return [GaugeMetricFamily("promolift_ledger_up", "Whether the ledger answers.", value=1), cents, price, outbox]
