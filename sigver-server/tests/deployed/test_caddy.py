"""deploy/Caddyfile before a sigver."""

import os
import subprocess

from support import DEPLOY, Client, Deployed, certificate, free_port, get, session

CADDY = os.environ["CADDY"]


class Caddy(Deployed):
    def start(self, *flags):
        sigver, log = self.run_sigver("--trusted-proxy", "127.0.0.1", *flags)
        (chain, key), self.tls = certificate(self.folder)
        port = free_port()
        site = (DEPLOY / "Caddyfile").read_text()
        for old, new in (
            ("example.org {", f"{{\n admin off\n auto_https disable_redirects\n}}\nhttps://example.org:{port} {{\n bind 127.0.0.1\n tls {chain} {key}"),
            ("127.0.0.1:8000\n\t}", f"127.0.0.1:{sigver}\n\t}}"),
        ):
            self.assertIn(old, site)
            site = site.replace(old, new)
        config = self.folder / "Caddyfile"
        config.write_text(site)
        self.run_program(
            [CADDY, "run", "--adapter", "caddyfile", "--config", str(config)],
            port,
            HOME=str(self.folder),
            XDG_DATA_HOME=str(self.folder),
            XDG_CONFIG_HOME=str(self.folder),
        )
        return port, log

    def test_it_is_formatted_as_caddy_does(self):
        result = subprocess.run([CADDY, "fmt", DEPLOY / "Caddyfile"], capture_output=True, text=True)
        self.assertEqual(result.stdout, (DEPLOY / "Caddyfile").read_text())

    def test_a_session_passes_and_the_client_is_known(self):
        port, log = self.start("--connections-per-ip", "2")
        connect = lambda: Client(port, path="/signal", tls=self.tls, source="127.0.0.2")
        opener, joiner = session(connect)
        self.assertEqual(connect().status, 503, "the limit is the client's")
        self.assertEqual(Client(port, path="/signal", tls=self.tls, source="127.0.0.3").status, 101)
        self.assertIn("ok", get(port, "/signal/health", self.tls))
        self.assertEqual(get(port, "/signalhealth", self.tls), "")
        self.programs[0].terminate()
        self.assertEqual(joiner.hear(), (1001, "server shutting down"))
        self.assertEqual(opener.hear(), (1001, "server shutting down"))
        self.eventually("the log tells of the client", lambda: "from 127.0.0.2 by 127.0.0.1:" in log.read_text())
