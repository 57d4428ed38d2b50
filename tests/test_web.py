"""The HTTP side of the node: health, metrics, and who is answered."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("fastapi", reason="the extra clinic is not installed")
pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")

from prometheus_client.parser import text_string_to_metric_families

from mammodensity.clinic.config import ClinicConfig, Web, config_from
from mammodensity.clinic.database import Arrival
from mammodensity.clinic.node import Node
from mammodensity.errors import OptionError, OutputError
from mammodensity.web.server import WebServer


@pytest.fixture
def node(tmp_path):
    """A node that answers HTTP requests; its workers are not started."""
    node = Node(ClinicConfig(dicom_port=0, web=Web(port=0), least_free_gb=0.0), tmp_path)
    web = WebServer(node)
    yield node, f"http://127.0.0.1:{web.start()}"
    web.stop()
    node.database.close()


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_health_says_what_is_wrong(node):
    running, url = node
    status, text = get(f"{url}/health")
    assert status == 503, text
    assert json.loads(text)["problems"] == [
        "no worker runs: exams are not read",
        "a part of the node has stopped: start it again",
    ]
    assert running.workers_alive == 0


def test_metrics_count_what_the_database_holds(node):
    running, url = node
    for number, projection in enumerate(["CC_R", "CC_L", None]):
        image = Arrival(f"1.2.{number}", "1.2", f"d{number}", f"{number}.dcm", projection, None, "PACS")
        running.database.add(image, 100.0, settle_s=1.0, settle_incomplete_s=2.0)
    status, text = get(f"{url}/metrics")
    assert status == 200
    found = samples(text)
    assert found["mammodensity_images", "mammogram"] == 2
    assert found["mammodensity_images", "other"] == 1
    assert found["mammodensity_exams", "collecting"] == 1
    assert found["mammodensity_exam_overdue_seconds",] == pytest.approx(running.clock() - 102.0, abs=60)
    assert found["mammodensity_database_up",] == 1
    assert "1.2.0" not in text


def test_a_request_under_another_host_name_is_refused(node):
    _, url = node
    assert get(f"{url}/health", Host="evil.example")[0] == 400
    assert get(f"{url}/metrics", Host="localhost")[0] == 200


def test_a_port_that_is_taken_is_told_in_one_line(node, tmp_path):
    port = int(node[1].rpartition(":")[2])
    other = Node(ClinicConfig(web=Web(port=port)), tmp_path / "other")
    with pytest.raises(OutputError, match=rf"cannot listen on 127.0.0.1:{port}: .*; choose another port"):
        WebServer(other).start()
    other.database.close()


def test_other_machines_need_a_token_and_tls():
    for settings, message in (
        ({}, "token is needed"),
        ({"token": "env:TOKEN"}, r"\[tls\] is needed"),
        ({"token": "TOKEN"}, "token must"),
    ):
        with pytest.raises(OptionError, match=message):
            config_from({"web": {"bind": "0.0.0.0", **settings}})
    assert config_from({"web": {"bind": "", "token": "env:TOKEN", "insecure": True}}).web.insecure
    with pytest.raises(OptionError, match=r"web must be a table: write \[web\] above"):
        config_from({"web": 8080})


def test_with_a_token_nobody_else_is_answered(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hush")
    node = Node(ClinicConfig(web=Web(port=0, token="env:TOKEN")), tmp_path)
    web = WebServer(node)
    url = f"http://127.0.0.1:{web.start()}"
    basic = "Basic " + b64encode(b"anybody:hush").decode()
    for header, expected in (("Bearer hush", 200), (basic, 200), ("Bearer hus", 401), ("Basic %%", 401), ("hush", 401)):
        assert get(f"{url}/metrics", Authorization=header)[0] == expected, header
    assert get(f"{url}/metrics")[0] == 401
    assert get(f"{url}/absent")[0] in (401, 404)
    assert get(f"{url}/health")[0] == 503, "health says nothing of patients"
    web.stop()
    node.database.close()
