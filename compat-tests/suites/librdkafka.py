"""librdkafka's own tests against Woodpecker, compared with librdkafka.pass.

usage: librdkafka.py              run everything; fail if a test of the list does not pass
       librdkafka.py TEST ...     run these (0045, or a whole name), compare with nothing
       librdkafka.py --at HOST:PORT ...    against a broker that runs already, in this network

Each test number runs in a process of its own, several at once, because a test that fails takes its process down. What
is in the list and fails runs once more by itself before it counts: two of the tests are flaky on Kafka too. Tests that
need no broker, or a person, are left out, as are those for which librdkafka itself expects failure.
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness

VERSION = "2.12.1"
# What the tests of the broker's version take it for. Woodpecker speaks the protocol of this Kafka.
KAFKA_VERSION = "4.1.0"
LIMIT_S = 900
AT_ONCE = int(os.environ.get("JOBS", "6"))
# Begun first, lest all the others wait for them at the end.
LONG = ["0113", "0081", "0098", "0103", "0089"]
# What the tests assume about a broker, from the facts of librdkafka's own CI: four partitions, and time to join.
SETTINGS = {"num_partitions": 4, "group_initial_rebalance_delay_ms": 3000}
SCRIPTS = {"kafka-topics": "org.apache.kafka.tools.TopicCommand", "kafka-acls": "org.apache.kafka.tools.AclCommand",
           "kafka-run-class": ""}


def tests_of(suite):
    """The tests for a broker as {scenario: {number: [name, ...]}}."""
    text = " ".join((suite / "tests" / "test.c").read_text().split())
    found = {"default": {}, "noautocreate": {}}
    for entry in text.split(" _TEST(")[1:]:
        # One of them is an example in a comment.
        parts = re.match(r"(\d{4})_(\w+), ?([A-Z0-9_| ]+)", entry)
        if parts is None:
            continue
        number, name, flags = parts.groups()
        if re.search(r"TEST_F_(LOCAL|MANUAL|KNOWN_ISSUE)\b", flags) or name.endswith("_mock"):
            continue
        scenario = "noautocreate" if '"noautocreate"' in entry else "default"
        found[scenario].setdefault(number, []).append(f"{number}_{name}")
    return found


class Runner:
    def __init__(self, suite, folder, kafka):
        self.suite, self.logs, self.kafka = suite, folder, kafka
        self.environment = {
            **os.environ, "BROKERS": kafka, "TEST_KAFKA_VERSION": KAFKA_VERSION, "KAFKA_PATH": str(self.kafka_path()),
            "LD_LIBRARY_PATH": f"{suite}/src:{suite}/src-cpp", "KAFKA_JVM_FLAGS": "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "RDKAFKA_TEST_CONF": str(folder / "test.conf")}
        settings = ["broker.address.family=v4", "test.topic.random=true", "test.timeout.multiplier=2"]
        (folder / "test.conf").write_text("\n".join([f"bootstrap.servers={kafka}", *settings, ""]))

    def kafka_path(self):
        """Some tests call Kafka's scripts, or compile small clients in Java."""
        home = self.logs / "kafka"
        (home / "bin").mkdir(parents=True)
        for script, main in SCRIPTS.items():
            path = home / "bin" / f"{script}.sh"
            path.write_text(f'#!/bin/sh\nexec "{harness.Kafka.SCRIPT}" java {main} "$@"\n')
            path.chmod(0o755)
        jars = Path(harness.output(harness.Kafka.SCRIPT, "install")) / "jars"
        (home / "libs").symlink_to(jars)
        return home

    def run(self, scenario, number, names):
        """Runs the tests of a number; {name: (result, seconds)}."""
        log = self.logs / f"{number}.{scenario}.log"
        begun = time.monotonic()
        with open(log, "ab") as out:
            command = ["timeout", "--kill-after=5", str(LIMIT_S), "stdbuf", "-oL", "./test-runner", "-L", "-p1", "-s", scenario]
            subprocess.run(command, cwd=self.suite / "tests", env={**self.environment, "TESTS": number},
                           stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
        took = time.monotonic() - begun
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
        table = {m[0]: m[1] for m in re.findall(r"^\| (\w+) *\| *(PASSED|FAILED|SKIPPED) *\|", text, re.MULTILINE)}
        words = {"PASSED": "PASS", "SKIPPED": "SKIP"}
        return {name: (words.get(table.get(name), "FAIL"), took) for name in names}

    def run_all(self, scenario, tests, wanted):
        """Runs what is wanted of a scenario and prints each result as it comes; {name: result}."""
        results = {}
        order = sorted(tests.items(), key=lambda item: (item[0] not in LONG, item[0]))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            chosen = [(number, [n for n in names if wanted(n)]) for number, names in order]
            running = [pool.submit(self.run, scenario, number, names) for number, names in chosen if names]
            for ended in running:
                for name, (result, took) in ended.result().items():
                    print(f"{name} {result} {took:.1f}", flush=True)
                    results[name] = result
        return results


def run_scenario(suite, folder, scenario, tests, wanted, must_pass, at):
    broker = None
    if at is None:
        settings = {**SETTINGS, "auto_create_topics": str(scenario == "default").lower()}
        broker = harness.Woodpecker(folder / f"broker-{scenario}", **settings).start()
    logs = folder / scenario
    logs.mkdir()
    runner = Runner(suite, logs, at or broker.kafka)
    results = runner.run_all(scenario, tests, wanted)
    for number, names in tests.items():
        again = [name for name in names if name in (must_pass or []) and results.get(name) == "FAIL"]
        if again:
            print(f"once more: {' '.join(again)}", flush=True)
            results.update({name: result for name, (result, _) in runner.run(scenario, number, again).items()})
    if broker:
        broker.end()
    return results


def main(arguments):
    at = None
    if arguments[:1] == ["--at"]:
        at, arguments = arguments[1], arguments[2:]
    # Both are fetched before the network is gone, and found in the cache after that.
    suite = Path(harness.output(harness.SUITES / "librdkafka-build", VERSION, "tests"))
    harness.output(harness.Kafka.SCRIPT, "install")
    if at is None:
        harness.enter()
    folder = harness.workspace("librdkafka")
    must_pass = None if arguments else harness.listed(harness.SUITES / "librdkafka.pass")
    results = {}
    for scenario, tests in tests_of(suite).items():
        wanted = (lambda name: any(name.startswith(a) for a in arguments)) if arguments else (lambda name: True)
        if any(wanted(name) for names in tests.values() for name in names):
            results.update(run_scenario(suite, folder, scenario, tests, wanted, must_pass, at))
    print(f"logs in {folder}")
    return harness.judge(results, must_pass)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
