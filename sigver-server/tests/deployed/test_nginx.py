"""deploy/nginx.conf before a sigver: what works, and each thing that proxy.md says goes wrong."""

import os
import time

from support import DEPLOY, Client, Deployed, certificate, free_port, get, session

NGINX = os.environ["NGINX"]


class Nginx(Deployed):
    def start(self, *flags, change=lambda text: text):
        """sigver behind nginx, with the configuration changed for the test; nginx's port and sigver's log."""
        sigver, log = self.run_sigver("--trusted-proxy", "127.0.0.1", *flags)
        (chain, key), self.tls = certificate(self.folder)
        port = free_port()
        site = (DEPLOY / "nginx.conf").read_text()
        for old, new in (
            ("listen [::]:443 ssl;", ""),
            ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
            ("/etc/letsencrypt/live/example.org/fullchain.pem", str(chain)),
            ("/etc/letsencrypt/live/example.org/privkey.pem", str(key)),
            ("http://127.0.0.1:8000", f"http://127.0.0.1:{sigver}"),
        ):
            self.assertIn(old, site)
            site = site.replace(old, new)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        config = self.folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {self.folder}/pid; error_log stderr; events {{}} http {{ access_log off; {paths} {change(site)} }}"
        )
        self.run_program([NGINX, "-p", str(self.folder), "-e", "stderr", "-c", str(config)], port)
        return port, log

    def connect(self, port, **more):
        return Client(port, **{"path": "/signal", "tls": self.tls, **more})

    def test_a_session_passes_and_the_end_is_told(self):
        port, _ = self.start()
        opener, joiner = session(lambda: self.connect(port))
        big = '{"sdp":"' + "x" * 60_000 + '"}'
        joiner.say(big)
        self.assertEqual(opener.hear(), big[:-1] + ',"index":0}')
        # The first that was started is sigver.
        self.programs[0].terminate()
        self.assertEqual(joiner.hear(), (1001, "server shutting down"))
        self.assertEqual(opener.hear(), (1001, "server shutting down"))

    def test_the_prefix_is_nothing_to_sigver(self):
        port, _ = self.start("--demo")
        for path, status in (("/signal", 101), ("/signal/", 101), ("/signal/room?x=1", 101), ("/other", 404), ("/signalhealth", 404)):
            self.assertEqual(self.connect(port, path=path).status, status, path)
        for path, says in (("/signal/health", "ok"), ("/signal/", "<!doctype html>"), ("/signal/chat.js", "RTCPeerConnection")):
            # What is no handshake goes the same way.
            self.assertIn(says, get(port, path, self.tls), path)

    def test_the_client_is_whom_nginx_was_called_by(self):
        port, log = self.start("--connections-per-ip", "1")
        one = self.connect(port, source="127.0.0.2", headers="X-Forwarded-For: 127.0.0.3\r\n")
        self.assertEqual(one.status, 101)
        self.assertEqual(self.connect(port, source="127.0.0.2", headers="X-Forwarded-For: 127.0.0.4\r\n").status, 503)
        self.assertEqual(self.connect(port, source="127.0.0.3").status, 101)
        one.close()
        self.eventually("the log tells of the client", lambda: "from 127.0.0.2 by 127.0.0.1:" in log.read_text())

    def test_a_silent_connection_outlives_the_time_out_by_its_pings(self):
        port, _ = self.start("--keep-alive", "1", change=lambda text: text.replace("60s", "2s"))
        opener, joiner = session(lambda: self.connect(port))
        deadline = time.monotonic() + 5
        opener.stream.settimeout(0.2)
        joiner.stream.settimeout(0.2)
        while time.monotonic() < deadline:
            for client in (opener, joiner):
                try:
                    self.fail(client.hear())
                except TimeoutError:
                    pass
        joiner.say('{"still":"here"}')
        opener.stream.settimeout(5)
        self.assertEqual(opener.hear(), '{"still":"here","index":0}')

    def test_wrong_a_time_out_shorter_than_the_pings(self):
        port, log = self.start(change=lambda text: text.replace("60s", "1s"))
        client = self.connect(port)
        self.assertEqual(client.status, 101)
        with self.assertRaises(EOFError):
            client.hear()
        self.eventually("the log tells of it", lambda: " lost after 1." in log.read_text())

    def test_wrong_no_upgrade(self):
        strip = lambda text: text.replace("proxy_set_header Upgrade $http_upgrade;", "").replace('Connection "upgrade"', 'Connection ""')
        port, log = self.start(change=strip)
        client = self.connect(port)
        self.assertEqual(client.status, 426)
        self.assertIn("is there a proxy that does not pass them on?", client.rest())
        self.eventually("the log tells of it", lambda: "answered 426" in log.read_text())

    def test_wrong_http_1_0(self):
        port, log = self.start(change=lambda text: text.replace("proxy_http_version 1.1;", ""))
        self.assertEqual(self.connect(port).status, 505)
        self.eventually("the log tells of it", lambda: "answered 505" in log.read_text())

    def test_wrong_no_x_forwarded_for(self):
        without = lambda text: text.replace("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", "")
        port, _ = self.start("--connections-per-ip", "1", change=without)
        one = self.connect(port, source="127.0.0.2")
        self.assertEqual(one.status, 101)
        self.assertEqual(self.connect(port, source="127.0.0.3").status, 503, "everyone comes from the proxy")

    def test_wrong_sigver_is_not_there(self):
        port, _ = self.start()
        self.programs[0].terminate()
        self.programs[0].wait()
        self.assertEqual(self.connect(port).status, 502)

