#!/usr/bin/env python3
"""Prints seal-vectors.json: sealed messages that another implementation has computed. Requires the package `cryptography`.

With --check, compares with the file instead.
"""

import base64
import json
import pathlib
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRETS = ["correct horse battery staple", "ключ из шестнадцати байтов"]
KEYS = ["tea", "clé ☕"]
DATA = ['{"type":"offer","sdp":"v=0\\r\\n"}', '"é😀"', "null"]
COUNTERS = [0, 1, 2**32 + 5]


def seal(secret, key, nonces, role, counter, data):
    salt = nonces["opener"] + nonces["joiner"]
    info = f"sigver.seal.v1 {role} {key}".encode()
    derived = HKDF(SHA256(), 32, salt, info).derive(secret.encode())
    return AESGCM(derived).encrypt(counter.to_bytes(12, "big"), data.encode(), None)


def text(raw):
    return base64.b64encode(raw).decode()


vectors = []
nonces = {"opener": bytes(range(16)), "joiner": bytes(range(255, 239, -1))}
for secret, key in zip(SECRETS, KEYS):
    for role in ("opener", "joiner"):
        messages = [
            {"counter": counter, "data": data, "box": text(seal(secret, key, nonces, role, counter, data))}
            for counter, data in zip(COUNTERS, DATA)
        ]
        vectors.append({"secret": secret, "key": key, "from": role, "messages": messages})
out = json.dumps({"nonces": {role: text(nonce) for role, nonce in nonces.items()}, "vectors": vectors}, indent=2, ensure_ascii=False) + "\n"

if "--check" in sys.argv:
    sys.exit(out != (pathlib.Path(__file__).parent / "seal-vectors.json").read_text())
print(out, end="")
