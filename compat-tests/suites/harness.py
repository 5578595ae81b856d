"""What the suites share: a network of their own, a broker as a process, and lists of what must pass.

Every suite runs in namespaces of its own for network and processes: all ports of its loopback are free, and whatever it
started ends with it.
"""

import http.client
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

SUITES = Path(__file__).resolve().parent
ROOT = SUITES.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
START_LIMIT_S = 60
INSIDE = "WOODPECKER_SUITE_ISINSIDE"


def enter():
    """Runs this program again inside its own namespaces, or goes on where it is there already."""
    if os.environ.pop(INSIDE, None):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # Where a machine has no address but 127.0.0.1, getaddrinfo finds no IPv4 for those who ask for what is usable.
        subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
        return
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    inside = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
    os.execvpe("unshare", inside, {**os.environ, INSIDE: "1"})


def workspace(name):
    """An empty folder for a suite. What it holds at the end stays, for those who want to look."""
    folder = TARGET / "suites" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def output(*command):
    """What a command printed, its errors shown."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Woodpecker:
    """A broker on 127.0.0.1 with its data in a folder; started again, it finds its data."""

    def __init__(self, folder, port=9092, **settings):
        self.folder, self.port, self.kafka = Path(folder), port, f"127.0.0.1:{port}"
        self.settings = {f"WOODPECKER_{key.upper()}": str(value) for key, value in settings.items()}
        self.process = None

    def start(self):
        binary = os.environ.get("WOODPECKER_BINARY", TARGET / "debug" / "woodpecker")
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("WOODPECKER_", "AWS_"))}
        arguments = ["--listen", self.kafka, "--http", f"127.0.0.1:{self.port + 1}", "--storage", self.folder / "data"]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [binary, *arguments], env={**environment, **self.settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the broker did not start, see {self.folder / 'log'}")
            time.sleep(0.02)
        return self

    def _is_ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port + 1, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def end(self, how=signal.SIGTERM):
        """Ends it and waits; the exit code, negative after a signal that it does not handle."""
        self.process.send_signal(how)
        return self.process.wait(60)

    def kill(self):
        self.end(signal.SIGKILL)

    def cpu_s(self):
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Kafka:
    """A real Apache Kafka of one node, for comparisons."""

    SCRIPT = ROOT / "compat-tests" / "servers" / "kafka"

    def __init__(self, folder, port=19092):
        self.folder, self.port, self.kafka = Path(folder), port, f"127.0.0.1:{port}"

    def start(self):
        subprocess.run([self.SCRIPT, "start", str(self.port), self.folder], check=True)
        return self

    def end(self):
        subprocess.run([self.SCRIPT, "stop", self.folder], check=True)


def lines(path):
    """The lines of a list that are not empty and no comments."""
    kept = (line.strip() for line in Path(path).read_text().splitlines())
    return [line for line in kept if line and not line.startswith("#")]


def listed(path):
    """The names in a list: the first word of each line."""
    return [line.split()[0] for line in lines(path)]


def judge(results, must_pass):
    """Prints what differs from the list (None: nothing has to pass) and returns the exit code."""
    counts = {result: sum(1 for r in results.values() if r == result) for result in ("PASS", "FAIL", "SKIP")}
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    if must_pass is None:
        return 0
    broken = [name for name in must_pass if results.get(name) != "PASS"]
    more = sorted(name for name, result in results.items() if result == "PASS" and name not in must_pass)
    print(f"{len(must_pass)} must pass")
    for name in more:
        print(f"passes and is not in the list yet: {name}")
    for name in broken:
        print(f"MUST PASS: {name} is {results.get(name, 'not there')}")
    return 1 if broken else 0


# A client of bytes, for what no client library asks.

def connect(kafka):
    host, port = kafka.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


def call_over(connection, api_key, version, body):
    """Sends a request with a header that has no tagged fields and returns the response from behind its header."""
    request = struct.pack(">hhih", api_key, version, 1, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    length = struct.unpack(">i", _exactly(connection, 4))[0]
    response = _exactly(connection, length)
    assert struct.unpack_from(">i", response)[0] == 1, "the response to another request"
    return response[4:]


def _exactly(connection, count):
    parts = []
    while count:
        part = connection.recv(count)
        if not part:
            raise ConnectionError("the broker closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def call(kafka, api_key, version, body):
    with connect(kafka) as connection:
        return call_over(connection, api_key, version, body)


def api_versions_over(connection, version):
    """{api key: (lowest, highest)}, asked with version 0, or 3 (flexible)."""
    # Version 3: tagged fields of the header, two compact strings, tagged fields of the body.
    response = call_over(connection, 18, version, b"\0\6tests\0021\0" if version == 3 else b"")
    assert struct.unpack_from(">h", response)[0] == 0
    if version == 3:
        count, at, size = response[2] - 1, 3, 7
    else:
        count, at, size = struct.unpack_from(">i", response, 2)[0], 6, 6
    ranges = (struct.unpack_from(">hhh", response, at + n * size) for n in range(count))
    return {key: (low, high) for key, low, high in ranges}


def api_versions(kafka, version):
    with connect(kafka) as connection:
        return api_versions_over(connection, version)


def _string(text):
    return struct.pack(">h", len(text)) + text.encode()


def fetch(kafka, topic, offset, wait_ms=500, min_bytes=1):
    """Fetch v11 of partition 0: the error code and the record batches."""
    head = struct.pack(">iiiibii", -1, wait_ms, min_bytes, 50 << 20, 0, 0, -1)
    partition = struct.pack(">iiiqqi", 1, 0, -1, offset, -1, 1 << 20)
    body = head + struct.pack(">i", 1) + _string(topic) + partition + struct.pack(">i", 0) + _string("")
    response = call(kafka, 1, 11, body)
    # Throttle time, error, session, one topic, its name, one partition.
    at = 4 + 2 + 4 + 4 + 2 + len(topic) + 4
    _, error, _, _, _, aborted = struct.unpack_from(">ihqqqi", response, at)
    assert aborted <= 0
    at += 4 + 2 + 8 + 8 + 8 + 4 + 4
    length = struct.unpack_from(">i", response, at)[0]
    return error, response[at + 4:at + 4 + max(length, 0)]


def delete_records(kafka, topic, before):
    """DeleteRecords v0 of partition 0."""
    body = struct.pack(">i", 1) + _string(topic) + struct.pack(">iiqi", 1, 0, before, 30_000)
    response = call(kafka, 21, 0, body)
    error = struct.unpack_from(">h", response, len(response) - 2)[0]
    assert error == 0, f"DeleteRecords answers {error}"
