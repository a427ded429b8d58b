"""The units for systemd, as systemd-analyze reads them."""

import pathlib
import re
import shutil
import subprocess
import unittest

from support import DEPLOY, SIGVER, Deployed

# systemd's own measure: 0 is no exposure at all, 10 is root without bounds.
MOST_EXPOSURE = 1.5


@unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd here")
class Units(Deployed):
    def setUp(self):
        super().setUp()
        for name in ("sigver-server.service", "sigver-server.socket"):
            # A program that is not there is an error.
            text = (DEPLOY / name).read_text().replace("/usr/local/bin/sigver-server", str(pathlib.Path(SIGVER).resolve()))
            (self.folder / name).write_text(text)

    def test_they_are_understood(self):
        units = [self.folder / name for name in ("sigver-server.service", "sigver-server.socket")]
        result = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_the_service_is_hardened(self):
        command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", self.folder / "sigver-server.service"]
        result = subprocess.run(command, capture_output=True, text=True)
        level = re.search(r"Overall exposure level for sigver-server.service: ([\d.]+)", result.stdout)
        self.assertIsNotNone(level, result.stdout + result.stderr)
        self.assertLessEqual(float(level[1]), MOST_EXPOSURE)
