"""Metrics of the node for Prometheus, read from the database when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mammodensity import __version__
from mammodensity.clinic.node import Node
from mammodensity.errors import OutputError


class NodeCollector(Collector):
    """Collects what a node has done and what waits."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> list[Metric]:
        """Nothing: names are known when the database has been read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; without a database, only what the node knows itself."""
        node = self._node
        info = GaugeMetricFamily("mammodensity_info", "Version of the program", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily("mammodensity_workers", "Workers that run", value=node.workers_alive)
        yield CounterMetricFamily("mammodensity_worker_deaths", "Workers that ended by themselves", node.worker_deaths)
        yield GaugeMetricFamily("mammodensity_free_bytes", "Free space of the data folder", value=node.free_bytes())
        try:
            counts = node.database.counts(node.clock())
        except OutputError:
            yield GaugeMetricFamily("mammodensity_database_up", "1 when the database answers", value=0)
            return
        yield GaugeMetricFamily("mammodensity_database_up", "1 when the database answers", value=1)
        exams = GaugeMetricFamily("mammodensity_exams", "Exams by state", labels=["state"])
        for state, count in counts.exams.items():
            exams.add_metric([state], count)
        yield exams
        deliveries = GaugeMetricFamily(
            "mammodensity_deliveries", "Deliveries by destination and state", labels=["destination", "state"]
        )
        for labels, count in counts.deliveries.items():
            deliveries.add_metric(labels, count)
        yield deliveries
        images = GaugeMetricFamily("mammodensity_images", "Objects received, by what they are", labels=["use"])
        for use, count in counts.images.items():
            images.add_metric([use], count)
        yield images
        yield GaugeMetricFamily("mammodensity_results", "Results made", value=counts.results)
        yield GaugeMetricFamily(
            "mammodensity_exam_overdue_seconds", "Age of the exam that is due longest", value=counts.exam_overdue_s
        )
        yield GaugeMetricFamily(
            "mammodensity_delivery_age_seconds", "Age of the delivery that waits longest", value=counts.delivery_age_s
        )
