"""sigver-server behind nginx with deploy/nginx.conf, and each misconfiguration that proxy.md describes."""

import os
import re
import time

from support import DEPLOY, Client, Deployed, certificate, free_port, get, session

NGINX = os.environ["NGINX"]


class Nginx(Deployed):
    def start(self, *flags, change=lambda text: text):
        """Starts sigver-server behind nginx, whose configuration `change` may modify. Returns the port of nginx and the log of sigver-server."""
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

    def test_session_is_relayed_and_shutdown_closes_it(self):
        port, _ = self.start()
        opener, joiner = session(lambda: self.connect(port))
        big = '{"sdp":"' + "x" * 60_000 + '"}'
        joiner.send(big)
        self.assertEqual(opener.receive(), big[:-1] + ',"index":0}')
        # The first program is sigver-server.
        self.programs[0].terminate()
        self.assertEqual(joiner.receive(), (1001, "server shutting down"))
        self.assertEqual(opener.receive(), (1001, "server shutting down"))

    def test_unix_socket_serves_the_clients_of_the_proxy(self):
        socket = self.folder / "sigver.sock"
        # The workers run as another user.
        flags = ("--listen", f"unix:{socket}", "--socket-mode", "666")
        port, log = self.start(*flags, change=lambda text: re.sub(r"proxy_pass http://[^;]*;", f"proxy_pass http://unix:{socket};", text))
        clients = session(lambda: self.connect(port, source="127.0.0.2"))
        self.assertIn("ok", get(port, "/signal/health", self.tls))
        self.programs[0].terminate()
        self.eventually("the log names the client", lambda: "from 127.0.0.2 by unix socket closed with 1001" in log.read_text())
        self.eventually("the file is removed", lambda: not socket.exists())
        for client in clients:
            self.assertEqual(client.receive(), (1001, "server shutting down"))

    def test_prefix_is_removed(self):
        port, _ = self.start("--demo")
        for path, status in (("/signal", 101), ("/signal/", 101), ("/signal/room?x=1", 101), ("/other", 404), ("/signalhealth", 404)):
            self.assertEqual(self.connect(port, path=path).status, status, path)
        for path, part in (("/signal/health", "ok"), ("/signal/", "<!doctype html>"), ("/signal/chat.js", "RTCPeerConnection")):
            # Plain requests are forwarded too.
            self.assertIn(part, get(port, path, self.tls), path)

    def test_forged_forwarded_for_is_ignored(self):
        port, log = self.start("--connections-per-ip", "1")
        one = self.connect(port, source="127.0.0.2", headers="X-Forwarded-For: 127.0.0.3\r\n")
        self.assertEqual(one.status, 101)
        self.assertEqual(self.connect(port, source="127.0.0.2", headers="X-Forwarded-For: 127.0.0.4\r\n").status, 503)
        self.assertEqual(self.connect(port, source="127.0.0.3").status, 101)
        one.close()
        self.eventually("the log names the client", lambda: "from 127.0.0.2 by 127.0.0.1:" in log.read_text())

    def test_pings_keep_idle_connection_open(self):
        port, _ = self.start("--keep-alive", "1", change=lambda text: text.replace("60s", "2s"))
        opener, joiner = session(lambda: self.connect(port))
        deadline = time.monotonic() + 5
        opener.stream.settimeout(0.2)
        joiner.stream.settimeout(0.2)
        while time.monotonic() < deadline:
            for client in (opener, joiner):
                try:
                    self.fail(client.receive())
                except TimeoutError:
                    pass
        joiner.send('{"still":"here"}')
        opener.stream.settimeout(5)
        self.assertEqual(opener.receive(), '{"still":"here","index":0}')

    def test_timeout_shorter_than_keep_alive_closes_idle_connection(self):
        port, log = self.start(change=lambda text: text.replace("60s", "1s"))
        client = self.connect(port)
        self.assertEqual(client.status, 101)
        with self.assertRaises(EOFError):
            client.receive()
        self.eventually("it is logged", lambda: " lost after 1." in log.read_text())

    def test_missing_upgrade_header_is_answered_with_426(self):
        strip = lambda text: text.replace("proxy_set_header Upgrade $http_upgrade;", "").replace('Connection "upgrade"', 'Connection ""')
        port, log = self.start(change=strip)
        client = self.connect(port)
        self.assertEqual(client.status, 426)
        self.assertIn("is there a proxy that does not pass them on?", client.rest())
        self.eventually("it is logged", lambda: "answered 426" in log.read_text())

    def test_http_1_0_is_answered_with_505(self):
        port, log = self.start(change=lambda text: text.replace("proxy_http_version 1.1;", ""))
        self.assertEqual(self.connect(port).status, 505)
        self.eventually("it is logged", lambda: "answered 505" in log.read_text())

    def test_missing_forwarded_for_shares_limit_among_clients(self):
        without = lambda text: text.replace("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", "")
        port, _ = self.start("--connections-per-ip", "1", change=without)
        one = self.connect(port, source="127.0.0.2")
        self.assertEqual(one.status, 101)
        self.assertEqual(self.connect(port, source="127.0.0.3").status, 503, "all clients have the IP of the proxy")

    def test_stopped_server_is_answered_with_502(self):
        port, _ = self.start()
        self.programs[0].terminate()
        self.programs[0].wait()
        self.assertEqual(self.connect(port).status, 502)

