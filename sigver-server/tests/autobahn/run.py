"""Runs the cases of Autobahn against sigver-server and compares the outcomes with results.json.

    run.py SIGVER               runs all cases; fails if an outcome differs from results.json, or if README.md does not explain a case
                                that is not OK
    run.py SIGVER --write       runs all cases and writes results.json
    run.py SIGVER 6.4.* 7.1.6   runs these cases and prints their outcomes

SIGVER is the path of the binary. Requires kosoku (https://pypi.org/project/kosoku), which runs Autobahn's cases on Python 3.
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

# Cases and their concurrency. Most cases wait; those of section 9 are CPU-bound.
SECTIONS = [(["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], 8), (["9.*"], 2)]

# Timeout of a run in seconds; it takes 13 on two idle cores.
TIMEOUT = 180

# The largest message of section 9, plus the envelope that the bridge and sigver-server add.
MESSAGE_BYTES = 16 * 2**20 + 64


class Sigver:
    """sigver-server on a free port of the loopback interface."""

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
    """Returns what is compared: the verdicts on the exchange and on the close, and the close code of sigver-server."""
    return [result.behavior.value, result.behavior_close.value, result.remote_close_code]


def write(outcomes):
    lines = (f"{json.dumps(case)}: {json.dumps(outcome)}" for case, outcome in outcomes.items())
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def changes(outcomes):
    """Yields every case whose outcome differs from results.json."""
    expected = json.loads(RESULTS.read_text())
    for case in expected | outcomes:
        if outcomes.get(case) != expected.get(case):
            yield f"{case}: {outcomes.get(case)}, in {RESULTS.name} {expected.get(case)}"


def unexplained(outcomes):
    """Yields every case that is not OK and not in the table of the README, and every row of the table that matches no such case."""
    differing = [case for case, outcome in outcomes.items() if outcome[:2] != ["OK", "OK"]]
    first_cells = re.findall(r"^\|([^|]*)\|", README.read_text(), re.MULTILINE)
    rows = [row for cell in first_cells for row in re.findall(r"`([\d.*]+)`", cell)]
    for case in differing:
        if not any(fnmatch.fnmatchcase(case, row) for row in rows):
            yield f"{case} is {outcomes[case]}, and not explained in {README.name}"
    for row in rows:
        if not fnmatch.filter(differing, row):
            yield f"{row} is explained in {README.name}, but is OK"


def main():
    program, *arguments = sys.argv[1:]
    cases = [argument for argument in arguments if argument != "--write"]
    with Sigver(program) as address:
        results = asyncio.run(asyncio.wait_for(run(address, [(cases, 1)] if cases else SECTIONS), TIMEOUT))
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
