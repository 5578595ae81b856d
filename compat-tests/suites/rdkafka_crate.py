"""The rdkafka crate's own tests against Woodpecker, compared with rdkafka-crate.pass.

usage: rdkafka_crate.py            run everything; fail if a test of the list does not pass
       rdkafka_crate.py TEST ...   run the tests whose names contain one of these, compare with nothing

The crate is the version that our tests use. It takes for granted that the broker has the id 0, is reachable as
localhost:9092, and gives an auto-created topic three partitions.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import harness

LIMIT_S = 600
SETTINGS = {"num_partitions": 3, "group_initial_rebalance_delay_ms": 0}


def build(copy):
    """Copies the crate out of the registry's folder and builds its tests; [(name, executable), ...]."""
    metadata = json.loads(harness.output(
        "cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", harness.ROOT / "Cargo.toml"))
    [crate] = [package for package in metadata["packages"] if package["name"] == "rdkafka"]
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(Path(crate["manifest_path"]).parent, copy)
    # A folder below the workspace is a member of it unless it says that it is a workspace itself.
    with open(copy / "Cargo.toml", "a") as manifest:
        manifest.write("\n[workspace]\n")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(harness.TARGET / "rdkafka-crate")}
    built = subprocess.run(
        ["cargo", "test", "--no-run", "--tests", "--message-format=json", "--manifest-path", copy / "Cargo.toml"],
        env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    found = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable") and m["profile"]["test"]}
    return sorted(found.items())


def run(name, executable, copy, filters):
    """Runs one file of tests; {file::test: result}."""
    environment = {**os.environ, "KAFKA_HOST": "127.0.0.1:9092", "KAFKA_VERSION": "4.1.0"}
    ended = subprocess.run(["timeout", str(LIMIT_S), executable, *filters], cwd=copy, env=environment,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    (copy.parent / f"{name}.log").write_text(ended.stdout)
    words = {"ok": "PASS", "FAILED": "FAIL", "ignored": "SKIP"}
    return {f"{name}::{test}": words[word] for test, word in
            re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", ended.stdout, re.MULTILINE)}


def main(filters):
    folder = harness.TARGET / "suites" / "rdkafka-crate"
    tests = folder / "tests.json"
    if not os.environ.get(harness.INSIDE):
        harness.workspace("rdkafka-crate")
        tests.write_text(json.dumps(build(folder / "crate")))
    harness.enter()
    broker = harness.Woodpecker(folder / "broker", **SETTINGS).start()
    results = {}
    for name, executable in json.loads(tests.read_text()):
        for test, result in run(name, executable, folder / "crate", filters).items():
            print(f"{test} {result}", flush=True)
            results[test] = result
    broker.end()
    print(f"logs in {folder}")
    return harness.judge(results, None if filters else harness.listed(harness.SUITES / "rdkafka-crate.pass"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
