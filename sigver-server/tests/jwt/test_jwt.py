"""Tokens of PyJWT and jose, and the commands of OPERATING.md, against a running server."""

import base64
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm

HERE = pathlib.Path(__file__).resolve().parent
CLAIMS = {"sub": "alice", "open": ["alice-*"], "join": ["*"]}


class Tokens(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "node_modules").symlink_to(HERE / "node_modules")

    def run_sigver(self, keys):
        """Starts a server that accepts tokens of this file."""
        command = [os.environ["SIGVER"], "--listen", "127.0.0.1:0", "--jwt-keys", keys]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        self.address = server.stdout.readline().split()[-1]

    def status(self, token):
        """Returns the status of the response to a handshake with this token."""
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Authorization": f"Bearer {token}",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 60) as client:
            client.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            return int(client.makefile("rb").readline().split()[1])

    def test_every_algorithm_of_both_libraries(self):
        secret = os.urandom(32)
        private = {
            "HS256": secret,
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        jwks = {
            "HS256": HMACAlgorithm.to_jwk(secret, as_dict=True),
            "ES256": ECAlgorithm.to_jwk(private["ES256"].public_key(), as_dict=True),
            "EdDSA": OKPAlgorithm.to_jwk(private["EdDSA"].public_key(), as_dict=True),
        }
        keys = [{**jwk, "kid": f"pyjwt-{alg}"} for alg, jwk in jwks.items()]
        of_jose = json.loads(subprocess.check_output(["node", HERE / "mint.mjs"]))
        path = self.folder / "keys.json"
        path.write_text(json.dumps({"keys": keys + of_jose["keys"]}))
        self.run_sigver(path)
        now = time.time()

        def sign(alg, key, **claims):
            return jwt.encode({**CLAIMS, **claims}, key, algorithm=alg, headers={"kid": f"pyjwt-{alg}"})

        for alg, key in private.items():
            for claims in ({"exp": now + 60}, {"exp": int(now) + 60, "nbf": int(now) - 60, "aud": ["sigver"]}):
                self.assertEqual(self.status(sign(alg, key, **claims)), 101, (alg, claims))
            self.assertEqual(self.status(jwt.encode({**CLAIMS, "exp": now + 60}, key, algorithm=alg)), 101, alg)
            for claims in ({}, {"exp": now - 1}, {"exp": now + 60, "nbf": now + 60}, {"exp": now + 60, "aud": "x"}):
                self.assertEqual(self.status(sign(alg, key, **claims)), 401, (alg, claims))
        others = {
            "HS256": os.urandom(32),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        for alg, key in others.items():
            self.assertEqual(self.status(sign(alg, key, exp=now + 60)), 401, alg)
        self.assertEqual(self.status(jwt.encode({"exp": now + 60}, None, algorithm="none")), 401)
        self.assertEqual(self.status(jwt.encode({"exp": now + 60}, os.urandom(64), algorithm="HS512")), 401)
        self.assertEqual(len(of_jose["tokens"]), 12)
        for token in of_jose["tokens"]:
            self.assertEqual(self.status(token), 101, token)
            self.assertEqual(self.status(token[:-8] + "AAAAAAAA"), 401)

    def test_commands_of_the_manual(self):
        page = (HERE.parents[1] / "OPERATING.md").read_text()
        section = page.split("\n## Require JSON Web Tokens\n")[1].split("\n## ")[0]
        blocks = {name: section.split(f"```{name}\n")[1].split("```")[0] for name in ("sh", "python", "js")}
        commands, start = blocks["sh"].strip().rsplit("\n", 1)
        self.assertEqual(start, "sigver-server --jwt-keys jwt-keys.json")
        run = {"cwd": self.folder, "text": True}
        subprocess.run(["bash", "-ec", commands], check=True, **run)
        (self.folder / "sign.mjs").write_text(blocks["js"])
        of_python = subprocess.check_output([sys.executable, "-c", blocks["python"]], **run).strip()
        of_node = subprocess.check_output(["node", "sign.mjs"], **run).strip()
        self.run_sigver(self.folder / "jwt-keys.json")
        self.assertEqual([self.status(of_python), self.status(of_node)], [101, 101])
        self.assertEqual(self.status(of_python[:-1]), 401)


if __name__ == "__main__":
    unittest.main()
