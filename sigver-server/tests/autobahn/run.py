"""Runs Autobahn's cases against sigver, and compares what comes of them with results.json.

    run.py SIGVER               runs all, and fails if a case comes out otherwise than in results.json, or README.md does not say why
                                a case is not OK
    run.py SIGVER --write       runs all, and writes results.json
    run.py SIGVER 6.4.* 7.1.6   runs these and tells what came of them

SIGVER is the program. Needs kosoku (https://pypi.org/project/kosoku), which has Autobahn's cases for today's Python.
"""

import asyncio
import collections
import fnmatch
import json
import pathlib
import re
import subprocess
import sys

import kosoku
from bridge import Bridge

HERE = pathlib.Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"

# What is run, and how many cases of it at a time. Most cases wait; those of section 9 keep a processor busy.
SECTIONS = [(["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], 8), (["9.*"], 2)]

# How many seconds a run may take; on an idle machine with two processors it takes 13.
PATIENCE = 180

# The largest message of section 9, with room for what the bridge and sigver put around it.
MESSAGE_BYTES = 16 * 2**20 + 64


class Sigver:
    """The program, on a free port of the loopback interface."""

    def __init__(self, program):
        command = [program, "--listen", "127.0.0.1:0", "--message-bytes", str(MESSAGE_BYTES)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self):
        host, port = self.process.stdout.readline().removeprefix("sigver-server listening on ").strip().rsplit(":", 1)
        return host, int(port)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()


async def run(address, sections):
    bridge = Bridge(address)
    port = await bridge.start()
    results = []
    for cases, at_a_time in sections:
        try:
            results += await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, concurrency=at_a_time)
        except kosoku.FailureError as failure:
            results += failure.results
    await bridge.finish()
    return results


def outcome(result):
    """What is compared: the verdicts on what was exchanged and on how it was closed, and the code with which sigver closed."""
    return [result.behavior.value, result.behavior_close.value, result.remote_close_code]


def write(outcomes):
    lines = (f"{json.dumps(case)}: {json.dumps(outcome)}" for case, outcome in outcomes.items())
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def changes(outcomes):
    """Every case that is not as in results.json."""
    expected = json.loads(RESULTS.read_text())
    for case in expected | outcomes:
        if outcomes.get(case) != expected.get(case):
            yield f"{case}: {outcomes.get(case)}, in {RESULTS.name} {expected.get(case)}"


def unexplained(outcomes):
    """Every case that is not OK and not in the table of the README, and every row there without such a case."""
    differing = [case for case, outcome in outcomes.items() if outcome[:2] != ["OK", "OK"]]
    first_cells = re.findall(r"^\|([^|]*)\|", README.read_text(), re.MULTILINE)
    rows = [row for cell in first_cells for row in re.findall(r"`([\d.*]+)`", cell)]
    for case in differing:
        if not any(fnmatch.fnmatchcase(case, row) for row in rows):
            yield f"{case} is {outcomes[case]}, and {README.name} does not say why"
    for row in rows:
        if not fnmatch.filter(differing, row):
            yield f"{row} is explained in {README.name}, and is OK"


def main():
    program, *arguments = sys.argv[1:]
    cases = [argument for argument in arguments if argument != "--write"]
    with Sigver(program) as address:
        results = asyncio.run(asyncio.wait_for(run(address, [(cases, 1)] if cases else SECTIONS), PATIENCE))
    if cases:
        for result in results:
            print(result.case_id, *outcome(result), f"{result.duration} ms", result.result, result.result_close, sep=" | ")
        return
    results.sort(key=lambda result: [int(number) for number in result.case_id.split(".")])
    outcomes = {result.case_id: outcome(result) for result in results}
    print(*(f"{count} {what}" for what, count in collections.Counter(o[0] for o in outcomes.values()).items()), sep=", ")
    if "--write" in arguments:
        write(outcomes)
    wrong = [*changes(outcomes), *unexplained(outcomes)]
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


main()
