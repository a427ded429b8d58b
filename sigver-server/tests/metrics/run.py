"""What others make of the metrics page: the OpenMetrics parser of prometheus_client, and a Prometheus that scrapes it and answers every
question of the dashboard.

    run.py SIGVER PROMETHEUS
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def eventually(what, question, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = question()
        except OSError:
            answer = None
        if answer:
            return answer
        if time.monotonic() > deadline:
            sys.exit(f"not in {seconds} s: {what}")
        time.sleep(0.1)


class Client:
    """As much of a WebSocket client as a session needs."""

    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.stream.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert self.stream.recv(4096).startswith(b"HTTP/1.1 101 ")

    def say(self, message):
        text = json.dumps(message).encode()
        self.stream.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

    def hear(self):
        assert self.stream.recv(4096)


def session(port, key):
    opener, joiner = Client(port), Client(port)
    opener.say({"type": "open", "key": key})
    time.sleep(0.05)
    joiner.say({"type": "join", "key": key})
    opener.hear()
    joiner.say({"type": "offer"})
    opener.hear()
    opener.say({"type": "answer", "index": 0})
    joiner.hear()
    refused = Client(port)
    refused.say({"type": "join", "key": "nobody has it"})
    refused.hear()


def parsed(page):
    """The page's families by name, as the strictest parser reads them."""
    families = {family.name: family for family in text_string_to_metric_families(page)}
    kinds = {name: family.type for name, family in families.items()}
    for name, kind in {
        "sigver_connections": "gauge",
        "sigver_messages": "counter",
        "sigver_refused": "counter",
        "sigver_pairings": "counter",
        "sigver_relay_seconds": "histogram",
        "sigver_build": "info",
    }.items():
        assert kinds.get(name) == kind, (name, kinds)
    for family in families.values():
        assert family.documentation, family.name
        for sample in family.samples:
            assert set(sample.labels) <= {"direction", "reason", "stage", "le", "version"}, sample
    return families


def questions():
    """Every question that the dashboard asks, with its variables filled in."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], re.sub(r"\[\$__\w+\]", "[1m]", target["expr"]).replace("$job", ".*").replace("$instance", ".*")


def main(sigver, prometheus):
    page_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = (DEPLOY / "prometheus.yml").read_text()
        assert "127.0.0.1:9091" in config and "15s" in config
        config = config.replace("127.0.0.1:9091", f"127.0.0.1:{page_port}").replace("15s", "1s")
        config_path = pathlib.Path(folder, "prometheus.yml")
        config_path.write_text(config)
        web = free_port()
        programs = [
            subprocess.Popen(
                [sigver, "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{page_port}"], stderr=subprocess.DEVNULL
            ),
            subprocess.Popen(
                [
                    prometheus,
                    f"--config.file={config_path}",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{web}",
                ],
                stderr=subprocess.DEVNULL,
            ),
        ]
        try:
            check(port, page_port, web)
        finally:
            for program in programs:
                program.terminate()
            for program in programs:
                program.wait()


def check(port, page_port, web):
    page = f"http://127.0.0.1:{page_port}/metrics"
    eventually("the page is served", lambda: get(page))
    session(port, "SECRET")
    text = eventually("the joiner's end is counted", lambda: 'ended-by-joiner"} 1' in get(page) and get(page))
    parsed(text)
    assert "SECRET" not in text

    def ask(expression):
        answer = json.loads(get(f"http://127.0.0.1:{web}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    eventually("Prometheus scrapes", lambda: ask("up{job='sigver'} == 1"))
    # A rate needs two scrapes that differ; so do the shares of the dashboard.
    for number in range(3):
        session(port, f"key {number}")
        time.sleep(1.1)
    for title, expression in questions():
        eventually(f"{title}: {expression}", lambda: ask(expression), 15)
        print(f"ok: {title}: {expression}")
    assert ask('sigver_pairings_total{stage="both-spoke"}')[0]["value"][1] == "4"


main(*sys.argv[1:])
