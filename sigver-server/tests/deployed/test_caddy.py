"""sigver-server behind Caddy with deploy/Caddyfile."""

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

    def test_caddyfile_is_formatted(self):
        result = subprocess.run([CADDY, "fmt", DEPLOY / "Caddyfile"], capture_output=True, text=True)
        self.assertEqual(result.stdout, (DEPLOY / "Caddyfile").read_text())

    def test_session_is_relayed_and_client_ip_is_forwarded(self):
        port, log = self.start("--connections-per-ip", "2")
        connect = lambda: Client(port, path="/signal", tls=self.tls, source="127.0.0.2")
        opener, joiner = session(connect)
        self.assertEqual(connect().status, 503, "the limit applies to the client IP")
        self.assertEqual(Client(port, path="/signal", tls=self.tls, source="127.0.0.3").status, 101)
        self.assertIn("ok", get(port, "/signal/health", self.tls))
        self.assertEqual(get(port, "/signalhealth", self.tls), "")
        self.programs[0].terminate()
        self.assertEqual(joiner.receive(), (1001, "server shutting down"))
        self.assertEqual(opener.receive(), (1001, "server shutting down"))
        self.eventually("the log names the client", lambda: "from 127.0.0.2 by 127.0.0.1:" in log.read_text())
