"""Same scripts, same answers: calls of Kafka's tools, kcat and librdkafka, against Woodpecker and against a real Kafka.

usage: same_answers.py            run everything on both and compare
       same_answers.py --show     and show every answer

What both print is normalised (addresses, ids, times) and compared line by line. Lines that differ on purpose are in
same_answers.differences, each with its reason; one that no longer makes a difference has to go.
"""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness

CLIENTS = harness.SUITES.parent / "clients"
LIMIT_S = 60


def environment():
    """The interpreter with the clients. Everything is fetched before the network is gone."""
    python = harness.output(CLIENTS / "python" / "run", "install")
    harness.output(CLIENTS / "java" / "run", "install")
    if Path(sys.executable) != Path(python):
        os.execv(python, [python, "-B", *sys.argv])


if __name__ == "__main__":
    environment()
    harness.enter()

# The clients exist only in that environment.
import same_answers_calls as calls  # noqa: E402

# What stands for the same thing on both sides, in the order of replacement.
NORMAL = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ", ""),
    (r"127\.0\.0\.1:\d+", "BROKER"),
    (r"\bport: \d+|\"port\": \d+|port=\d+", "PORT"),
    (r"(?i)(topic ?id|cluster ?id)(: |=|\W+)[\w-]{22}", r"\1\2ID"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b1[67]\d{11}\b", "TIME"),
    # Stacks, and how the JVM of several tools ends one of them.
    (r"\tat .*|\s+\.\.\. \d+ more|.*the tool exits$", ""),
    # What an error is counts, not how each broker puts it.
    (r"(\w(Exception|Error)|Error while executing \w+ command ?|^error \w+|: error \w+): .*", r"\1"),
    # A default's default, and what the settings of this one Kafka change for all topics.
    (r"(, )?DEFAULT_CONFIG:[^},]*", ""),
    (r"(Configs: |,)(min\.insync\.replicas=1|file\.delete\.delay\.ms=0)(,|$)", r"\1"),
    (r"(Configs: |,)(min\.insync\.replicas=1|file\.delete\.delay\.ms=0)(,|$)", r"\1"),
    (r"[ \t]+|,$", " "),
]


class Tools:
    """Kafka's tools in one JVM, as Tools.java serves them."""

    def __init__(self):
        self.process = subprocess.Popen([CLIENTS / "java" / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, main, arguments, stdin=""):
        self.process.stdin.write(json.dumps({"id": 1, "main": main, "args": arguments, "stdin": stdin}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return f"{answer['out']}\n{answer['err']}\nexit {answer['exit']}"


class Side:
    """One of the two brokers, and all the means to ask it."""

    def __init__(self, name, kafka, folder):
        self.name, self.kafka, self.folder = name, kafka, folder
        self.tools = Tools()
        folder.mkdir()

    def java(self, main, *arguments, stdin=""):
        return self.tools.call(main, ["--bootstrap-server", self.kafka, *arguments], stdin)

    def kcat(self, *arguments, stdin=""):
        ended = subprocess.run(["timeout", str(LIMIT_S), "kcat", "-b", self.kafka, *arguments], input=stdin, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return f"{ended.stdout}\nexit {ended.returncode}"

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)


def normal(text, ordered):
    for pattern, replacement in NORMAL:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if ordered else sorted(lines)


class Differences:
    """Lines of the file are `call | kafka or woodpecker or both | pattern of a line | reason`."""

    def __init__(self, path):
        rows = [[cell.strip() for cell in line.split(" | ")] for line in harness.lines(path)]
        self.rows = [(re.compile(call), sides, re.compile(line), reason) for call, sides, line, reason in rows]
        self.used = set()

    def without(self, call, side, lines, other):
        """The lines of an answer that count. A line that the other side printed as well always counts."""
        kept = []
        for line in lines:
            hit = next((n for n, (calls_, sides, pattern, _) in enumerate(self.rows)
                        if calls_.fullmatch(call) and sides in (side, "both") and pattern.fullmatch(line)), None)
            if hit is None or line in other:
                kept.append(line)
            else:
                self.used.add(hit)
        return kept

    def unused(self):
        return [" | ".join([r[0].pattern, r[1], r[2].pattern]) for n, r in enumerate(self.rows) if n not in self.used]


def main(arguments):
    folder = harness.workspace("same-answers")
    woodpecker = harness.Woodpecker(folder / "broker", broker_id=1, group_initial_rebalance_delay_ms=0)
    kafka = harness.Kafka(folder / "kafka")
    with ThreadPoolExecutor(2) as pool:
        for started in [pool.submit(kafka.start), pool.submit(woodpecker.start)]:
            started.result()
    sides = [Side("kafka", kafka.kafka, folder / "of-kafka"), Side("woodpecker", woodpecker.kafka, folder / "of-woodpecker")]
    differences = Differences(harness.SUITES / "same_answers.differences")
    different, same, begun = [], 0, time.monotonic()
    for name, ordered, call in calls.CALLS:
        answers = [normal(call(side), ordered) for side in sides]
        counted = [differences.without(name, side.name, answer, other)
                   for side, answer, other in zip(sides, answers, reversed(answers))]
        if "--show" in arguments:
            print(f"=== {name}", *answers[0], sep="\n")
        if counted[0] == counted[1]:
            same += 1
            continue
        different.append(name)
        print(f"DIFFERENT: {name}")
        for side, lines, other in zip(sides, counted, reversed(counted)):
            print(*(f"    {side.name:10} {line}" for line in lines if line not in other), sep="\n")
        if sorted(counted[0]) == sorted(counted[1]):
            print("    the same lines in another order")
    woodpecker.end()
    kafka.end()
    unused = differences.unused()
    print(*(f"no longer a difference: {row}" for row in unused), sep="\n", end="\n" if unused else "")
    print(f"{same} of {len(calls.CALLS)} calls have the same answers, {time.monotonic() - begun:.0f} s; logs in {folder}")
    return 1 if different or unused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
