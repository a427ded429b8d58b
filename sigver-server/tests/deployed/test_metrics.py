"""The metrics page, read by the OpenMetrics parser of prometheus_client and by a Prometheus that evaluates every query of the dashboard."""

import json
import os
import re
import time
import urllib.parse
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support import DEPLOY, Client, Deployed, free_port, session

PROMETHEUS = os.environ["PROMETHEUS"]


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def queries():
    """Yields the title and expression of every query of the dashboard, with its variables filled in."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            filled = re.sub(r"\[\$__\w+\]", "[1m]", target["expr"]).replace("$job", ".*").replace("$instance", ".*")
            yield panel["title"], filled


class Metrics(Deployed):
    def setUp(self):
        super().setUp()
        self.page_port = free_port()
        self.port, _ = self.run_sigver("--admin", f"127.0.0.1:{self.page_port}")

    def play(self, key):
        opener, joiner = session(lambda: Client(self.port), key)
        joiner.close()
        opener.close()
        rejected = Client(self.port)
        rejected.send('{"type":"join","key":"unknown"}')
        rejected.receive()

    def page(self):
        return get(f"http://127.0.0.1:{self.page_port}/metrics")

    def test_page_is_valid_openmetrics(self):
        self.play("SECRET")
        text = self.eventually("all clients have disconnected", lambda: "sigver_connections 0\n" in self.page() and self.page())
        self.assertNotIn("SECRET", text)
        families = {family.name: family for family in text_string_to_metric_families(text)}
        kinds = {name: family.type for name, family in families.items()}
        for name, kind in {
            "sigver_connections": "gauge",
            "sigver_messages": "counter",
            "sigver_refused": "counter",
            "sigver_pairings": "counter",
            "sigver_relay_seconds": "histogram",
            "sigver_build": "info",
        }.items():
            self.assertEqual(kinds.get(name), kind, name)
        for family in families.values():
            self.assertTrue(family.documentation, family.name)
            for sample in family.samples:
                self.assertLessEqual(set(sample.labels), {"direction", "reason", "stage", "le", "version"}, sample)

    def test_prometheus_answers_every_query_of_the_dashboard(self):
        config = (DEPLOY / "prometheus.yml").read_text()
        for old, new in (("127.0.0.1:9091", f"127.0.0.1:{self.page_port}"), ("15s", "1s")):
            self.assertIn(old, config)
            config = config.replace(old, new)
        path = self.folder / "prometheus.yml"
        path.write_text(config)
        web = free_port()
        self.run_program(
            [
                PROMETHEUS,
                f"--config.file={path}",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{web}",
            ],
            web,
        )

        def ask(expression):
            url = f"http://127.0.0.1:{web}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
            answer = json.loads(get(url))
            self.assertEqual(answer["status"], "success", answer)
            return answer["data"]["result"]

        self.eventually("Prometheus scrapes", lambda: ask("up{job='sigver'} == 1"))
        # A rate requires several different scrapes.
        for number in range(3):
            self.play(f"key {number}")
            time.sleep(1.1)
        asked = list(queries())
        self.assertGreater(len(asked), 15)
        for title, expression in asked:
            self.eventually(f"{title}: {expression}", lambda expression=expression: ask(expression))
        self.eventually(
            "all are counted", lambda: ask('sigver_pairings_total{stage="both-spoke"}')[0]["value"][1] == "3"
        )
