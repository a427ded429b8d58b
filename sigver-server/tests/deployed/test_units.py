"""The systemd units, checked by systemd-analyze."""

import pathlib
import re
import shutil
import subprocess
import unittest

from support import DEPLOY, SIGVER, Deployed

# On the scale of systemd-analyze: 0 is fully sandboxed, 10 is unrestricted root.
MAX_EXPOSURE = 1.5


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class Units(Deployed):
    def setUp(self):
        super().setUp()
        for name in ("sigver-server.service", "sigver-server.socket"):
            # systemd-analyze requires that the binary exists.
            text = (DEPLOY / name).read_text().replace("/usr/local/bin/sigver-server", str(pathlib.Path(SIGVER).resolve()))
            (self.folder / name).write_text(text)

    def test_units_are_valid(self):
        units = [self.folder / name for name in ("sigver-server.service", "sigver-server.socket")]
        result = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_service_is_hardened(self):
        command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", self.folder / "sigver-server.service"]
        result = subprocess.run(command, capture_output=True, text=True)
        level = re.search(r"Overall exposure level for sigver-server.service: ([\d.]+)", result.stdout)
        self.assertIsNotNone(level, result.stdout + result.stderr)
        self.assertLessEqual(float(level[1]), MAX_EXPOSURE)
