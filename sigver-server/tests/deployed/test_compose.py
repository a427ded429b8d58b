"""deploy/compose.yaml, without Docker: it is valid, and the commands of its parts are accepted by the programs that it runs."""

import json
import os
import subprocess

from support import DEPLOY, SIGVER, Client, Deployed, certificate, free_port, session

CADDY = os.environ["CADDY"]


class Compose(Deployed):
    def config(self):
        """Returns the configuration as Docker Compose reads it."""
        result = subprocess.run(
            ["docker-compose", "--project-directory", DEPLOY, "-f", DEPLOY / "compose.yaml", "config"],
            env={**os.environ, "SIGVER_DOMAIN": "example.org"},
            capture_output=True,
            text=True,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        # YAML of strings, lists and objects: json.loads cannot read it, the parser of docker-compose can.
        to_json = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
        parsed = subprocess.run(["/usr/bin/python3", "-c", to_json], input=result.stdout, check=True, capture_output=True, text=True)
        return json.loads(parsed.stdout)

    def test_domain_is_required(self):
        result = subprocess.run(
            ["docker-compose", "-f", DEPLOY / "compose.yaml", "config"],
            env={name: value for name, value in os.environ.items() if name != "SIGVER_DOMAIN"},
            capture_output=True,
            text=True,
        )
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("set it in .env", result.stderr)

    def test_server_accepts_its_flags(self):
        secret = self.folder / "turn-secret"
        secret.write_text("north star\n")
        service = self.config()["services"]["sigver"]
        flags = [flag.replace("/run/secrets/turn-secret", str(secret)) for flag in service["command"]]
        port = free_port()
        result = subprocess.run([SIGVER, "--check-config", f"--listen=127.0.0.1:{port}", *flags], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        for line in ("--turn turn:example.org:3478?transport=udp", "--allow-origin https://example.org", f"--turn-secret-file {secret}"):
            self.assertIn(line, result.stdout)

    def test_parts_fit_together(self):
        config = self.config()
        sigver, coturn = (config["services"][name] for name in ("sigver", "coturn"))
        [network] = config["networks"]["inside"]["ipam"]["config"]
        self.assertIn(f"--trusted-proxy={network['subnet']}", sigver["command"])
        for service in (sigver, coturn):
            self.assertEqual([secret["source"] for secret in service["secrets"]], ["turn-secret"])
        self.assertIn("--use-auth-secret", coturn["command"])
        self.assertIn("--listening-port=3478", coturn["command"])

    def test_caddy_forwards_to_the_server(self):
        sigver, _ = self.run_sigver("--trusted-proxy", "127.0.0.1")
        (chain, key), tls = certificate(self.folder)
        port = free_port()
        site = (DEPLOY / "compose.Caddyfile").read_text()
        for old, new in (
            ("{$SIGVER_DOMAIN} {", f"{{\n admin off\n auto_https disable_redirects\n}}\nhttps://{{$SIGVER_DOMAIN}}:{port} {{\n bind 127.0.0.1\n tls {chain} {key}"),
            ("sigver:8000", f"127.0.0.1:{sigver}"),
        ):
            self.assertIn(old, site)
            site = site.replace(old, new)
        config = self.folder / "Caddyfile"
        config.write_text(site)
        home = str(self.folder)
        command = [CADDY, "run", "--adapter", "caddyfile", "--config", str(config)]
        self.run_program(command, port, HOME=home, XDG_DATA_HOME=home, XDG_CONFIG_HOME=home, SIGVER_DOMAIN="example.org")
        session(lambda: Client(port, tls=tls))
