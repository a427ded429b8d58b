"""The Dockerfile, without Docker: its build command produces a static binary, and its health check works."""

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
    def test_binary_is_static_and_health_check_works(self):
        program = self.folder / "sigver-server"
        build = instruction("RUN")
        self.assertIn(" /sigver-server", build)
        environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
        # Optimization takes most of the time of a build, and does not affect what is tested.
        environment |= {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in
                        (("OPT_LEVEL", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16"))}
        command = build.replace(" /sigver-server", f" {program}").replace("cargo build", "cargo build --quiet")
        subprocess.run(["sh", "-ec", command], check=True, cwd=ROOT, env=environment)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True)
        self.assertRegex(listed.stdout + listed.stderr, "statically linked|not a dynamic executable")

        check = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
        port = free_port()
        self.assertIn(":8000/health", check[-1])
        check[-1] = check[-1].replace(":8000", f":{port}")
        is_healthy = lambda: subprocess.run([BUSYBOX, *check], capture_output=True).returncode == 0
        self.assertFalse(is_healthy(), "no server is running")
        self.run_program(["env", "-i", str(program), "--listen", f"127.0.0.1:{port}"], port)
        self.assertTrue(is_healthy())

    def test_image_runs_as_non_root_user(self):
        self.assertRegex(instruction("USER"), "^[1-9][0-9]*:[1-9][0-9]*$")
