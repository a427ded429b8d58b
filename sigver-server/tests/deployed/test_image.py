"""The Dockerfile, without a Docker: its build command gives a program that needs nothing of its image, and its health check tells."""

import json
import os
import re
import subprocess

from support import DEPLOY, Deployed, free_port

ROOT = DEPLOY.parents[1]
BUSYBOX = os.environ["BUSYBOX"]


def instruction(name):
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return re.search(rf"^{name} (.*)$", text, re.MULTILINE)[1]


class Image(Deployed):
    def test_what_it_runs_stands_alone_and_is_seen_to_be_well(self):
        program = self.folder / "sigver-server"
        build = instruction("RUN")
        self.assertIn(" /sigver-server", build)
        environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
        command = build.replace(" /sigver-server", f" {program}").replace("cargo build", "cargo build --quiet")
        subprocess.run(["sh", "-ec", command], check=True, cwd=ROOT, env=environment)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True)
        self.assertRegex(listed.stdout + listed.stderr, "statically linked|not a dynamic executable")

        check = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
        port = free_port()
        self.assertIn(":8000/health", check[-1])
        check[-1] = check[-1].replace(":8000", f":{port}")
        is_well = lambda: subprocess.run([BUSYBOX, *check], capture_output=True).returncode == 0
        self.assertFalse(is_well(), "nobody is there")
        self.run_program(["env", "-i", str(program), "--listen", f"127.0.0.1:{port}"], port)
        self.assertTrue(is_well())

    def test_it_is_nobody(self):
        self.assertRegex(instruction("USER"), "^[1-9][0-9]*:[1-9][0-9]*$")
