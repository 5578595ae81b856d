"""What Milvus asks of its message queue, with Milvus' own client library and settings (librdkafka 1.9.2).

usage: milvus.py              run everything
       milvus.py NAME ...     run the checks whose names contain one of these

Each check is named after what Milvus relies on. Its write-ahead log opens one topic per channel, always partition 0,
appends with headers and zstd, and reads with consumers that are assigned, never subscribed: a "scanner" each. Groups,
commits and administration are not used.
"""

import logging
import os
import random
import re
import struct
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness

LIMIT_S = 30
TOO_LARGE = 10_485_760
# As the README advises to set it for Milvus.
SETTINGS = {"message_max_bytes": TOO_LARGE, "num_partitions": 1}
ROUNDS = int(os.environ.get("WOODPECKER_MILVUS_ROUNDS", "10"))


def environment():
    """The interpreter with the old client. Made before the network is gone, found in the cache after that."""
    python = harness.output(harness.SUITES / "milvus-client")
    if Path(sys.executable) != Path(python):
        os.execv(python, [python, "-B", *sys.argv])


if __name__ == "__main__":
    environment()
    harness.enter()

# The client exists only in that environment.
from confluent_kafka import (  # noqa: E402
    Consumer, KafkaError, KafkaException, Producer, TopicPartition, OFFSET_BEGINNING, OFFSET_END)

COMMON = {"api.version.request": True, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 5000}
PRODUCER = {**COMMON, "compression.codec": "zstd", "linger.ms": 5, "message.max.bytes": TOO_LARGE}
CONSUMER = {**COMMON, "enable.auto.commit": False, "allow.auto.create.topics": True, "auto.offset.reset": "earliest"}


def unique(name):
    return f"by-dev-{name}-{uuid.uuid4().hex[:8]}"


def until(what, holds, limit_s=LIMIT_S):
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.005)


class Log:
    """The writing end of a channel. Every append waits for its delivery report, as Milvus does."""

    def __init__(self, kafka, topic, **settings):
        self.topic, self.errors, self.fatal = topic, [], []
        self.producer = Producer({**PRODUCER, "bootstrap.servers": kafka, "error_cb": self._told, **settings})
        self._open = True
        self._polling = threading.Thread(target=self._poll, daemon=True)
        self._polling.start()

    def _told(self, error):
        (self.fatal if error.fatal() else self.errors).append(error)

    def _poll(self):
        while self._open:
            self.producer.poll(0.1)

    def append(self, value, headers=None):
        """The offset of an acknowledged record; raises what the broker said."""
        ended, answer = threading.Event(), []

        def told(error, message):
            answer.append((error, message and message.offset()))
            ended.set()

        self.producer.produce(self.topic, value, partition=0, headers=headers, on_delivery=told)
        assert ended.wait(2 * LIMIT_S), "no delivery report"
        [(error, offset)] = answer
        if error:
            raise KafkaException(error)
        return offset

    def insist(self, value, headers=None):
        """Appends as Milvus' adaptor does: any error but a fatal one is tried again, for ever."""
        pause_s = 0.01
        while True:
            try:
                return self.append(value, headers)
            except KafkaException as error:
                assert not error.args[0].fatal(), error
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 5)

    def close(self):
        self._open = False
        self._polling.join()
        self.producer.flush(LIMIT_S)
        # The producer holds this object as its callback: without this neither would ever go.
        self.producer = None
        assert not self.fatal, self.fatal


class Scanner:
    """The reading end. Any error ends it, as it ends Milvus' scanners, which are then opened again."""

    def __init__(self, kafka, topic, start=OFFSET_BEGINNING, **settings):
        self.consumer = Consumer({**CONSUMER, "bootstrap.servers": kafka, "group.id": unique("scanner"), **settings})
        self.consumer.assign([TopicPartition(topic, 0, start)])
        self.records = []

    def read(self, timeout_s=0.1):
        message = self.consumer.poll(timeout_s)
        if message is None:
            return None
        if message.error():
            raise KafkaException(message.error())
        self.records.append((message.offset(), message.value(), message.headers()))
        return self.records[-1]

    def read_to(self, count):
        until(f"{count} records", lambda: self.read() is not None and len(self.records) >= count)
        return self.records

    def is_silent(self, for_s):
        return self.read(for_s) is None

    def close(self):
        self.consumer.close()


def watermarks(kafka, topic):
    consumer = Consumer({**CONSUMER, "bootstrap.servers": kafka, "group.id": "watermarks"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=LIMIT_S)
    finally:
        consumer.close()


def fill(kafka, topic, count):
    log = Log(kafka, topic)
    offsets = [log.append(f"{n}".encode(), {"_v": "1"}) for n in range(count)]
    log.close()
    assert offsets == list(range(count)), offsets


# The checks. Each takes the broker, which the next one uses as well.

def one_term(kafka, topic, term, expected):
    """A hundred appends, five at a time, beside two scanners that read everything from the first record on."""
    log = Log(kafka, topic)
    total = len(expected) + 100
    with ThreadPoolExecutor(7) as pool:
        def append_one(n):
            value, headers = f"{term}-{n}".encode(), [("_v", b"1"), ("_t", f"{n}".encode()), ("_lcs", b"")]
            return log.append(value, dict(headers)), value, headers

        def scan():
            scanner = Scanner(kafka, topic)
            records = scanner.read_to(total)
            scanner.close()
            return records

        scans = [pool.submit(scan) for _ in range(2)]
        for start in range(0, 100, 5):
            expected += pool.map(append_one, range(start, start + 5))
        expected.sort()
        for records in [scan.result() for scan in scans]:
            offsets = [offset for offset, _, _ in records]
            assert offsets == sorted(set(offsets)), "ids are sorted and unique"
            seen = [(offset, value, sorted(headers)) for offset, value, headers in records]
            assert seen == [(offset, value, sorted(headers)) for offset, value, headers in expected]
    log.close()


def one_channel(kafka):
    topic, expected = unique("rootcoord-dml"), []
    for term in range(3):
        one_term(kafka, topic, term, expected)
    middle = expected[150][0]
    starts_from = Scanner(kafka, topic, middle)
    assert [r[0] for r in starts_from.read_to(150)] == [r[0] for r in expected[150:]]
    # Start-after is start-from, and the first record dropped.
    assert starts_from.records[1][0] == expected[151][0]
    starts_from.close()
    latest = Scanner(kafka, topic, OFFSET_END)
    assert latest.is_silent(1.0), "nothing new was appended"
    log = Log(kafka, topic)
    new = log.append(b"new")
    assert [r[:2] for r in latest.read_to(1)] == [(new, b"new")]
    latest.close()
    log.close()


def workload_of_the_write_ahead_log(broker):
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(3) as pool:
            for channel in [pool.submit(one_channel, broker.kafka) for _ in range(3)]:
                channel.result()


def versions_that_are_offered(broker):
    for version in (0, 3):
        offered = harness.api_versions(broker.kafka, version)
        needed = {"Produce": (0, [3, 7]), "Fetch": (1, [4, 10, 11]), "ListOffsets": (2, [1, 2]),
                  "Metadata": (3, [1, 4]), "FindCoordinator": (10, [0, 2])}
        for name, (key, versions) in needed.items():
            low, high = offered[key]
            assert all(low <= v <= high for v in versions), f"{name} {low} to {high}, asked with v{version}"


class Sent(logging.Handler):
    """Which requests a client sent, in which versions, from what it logs."""

    def __init__(self):
        super().__init__()
        self.versions = {}

    def emit(self, record):
        for name, version in re.findall(r"Sent (\w+)Request \(v(\d+)", record.getMessage()):
            self.versions.setdefault(name, set()).add(int(version))


def versions_that_are_chosen(broker):
    topic, sent = unique("versions"), Sent()
    logger = logging.Logger("librdkafka")
    logger.addHandler(sent)
    log = Log(broker.kafka, topic, debug="protocol", logger=logger)
    log.append(b"x")
    log.close()
    scanner = Scanner(broker.kafka, topic, debug="protocol", logger=logger)
    scanner.read_to(1)
    scanner.consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=LIMIT_S)
    scanner.is_silent(0.5)
    scanner.close()
    chosen = {name: max(sent.versions.get(name, {-1})) for name in ("Produce", "Fetch", "ListOffsets", "Metadata")}
    assert chosen == {"Produce": 7, "Fetch": 11, "ListOffsets": 2, "Metadata": 4}, sent.versions


def topics_appear_for_writers_and_readers_at_once(broker):
    def race(_):
        topic, begun = unique("race"), time.monotonic()
        scanner, log = Scanner(broker.kafka, topic), Log(broker.kafka, topic)
        assert log.append(b"first") == 0
        assert scanner.read_to(1)[0][:2] == (0, b"first")
        took = time.monotonic() - begun
        partitions = log.producer.list_topics(topic, LIMIT_S).topics[topic].partitions
        assert len(partitions) == 1, partitions
        scanner.close()
        log.close()
        return took

    with ThreadPoolExecutor(16) as pool:
        slowest = max(pool.map(race, range(16)))
    assert slowest < 5, f"{slowest:.1f} s"


def asking_does_not_create(broker):
    topic = unique("absent")
    settings = {**CONSUMER, "bootstrap.servers": broker.kafka, "group.id": "ro", "allow.auto.create.topics": False}
    consumer = Consumer(settings)
    for _ in range(2):
        answer = consumer.list_topics(topic, LIMIT_S).topics[topic]
        assert answer.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, answer.error
    assert topic not in consumer.list_topics(timeout=LIMIT_S).topics
    consumer.close()


def ten_megabytes(broker):
    topic, noise = unique("large"), random.Random(7)
    large = noise.randbytes(10_400_000)
    log = Log(broker.kafka, topic)
    assert log.append(large) == 0
    log.close()
    bold = Log(broker.kafka, topic, **{"message.max.bytes": 2 * TOO_LARGE})
    assert bold.append(b"before") == 1
    try:
        bold.append(noise.randbytes(TOO_LARGE + 100_000))
        raise AssertionError("more than message_max_bytes was taken")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, error
    assert bold.append(b"after") == 2
    assert not bold.errors, f"the connection stayed: {bold.errors}"
    bold.close()
    # With the sizes of fetches that Milvus has: less than this record.
    scanner = Scanner(broker.kafka, topic)
    assert [value for _, value, _ in scanner.read_to(3)] == [large, b"before", b"after"]
    scanner.close()


def zstd_and_headers_come_back(broker):
    topic = unique("zstd")
    log = Log(broker.kafka, topic)
    headers = {"_v": "1", "_lcs": "", "_h": bytes(range(256)), "_tx": "\u00fc"}
    value = b"compressible " * 1000
    log.append(value, headers)
    log.close()
    scanner = Scanner(broker.kafka, topic)
    [(_, seen, seen_headers)] = scanner.read_to(1)
    scanner.close()
    encoded = {name: text if isinstance(text, bytes) else text.encode() for name, text in headers.items()}
    assert (seen, dict(seen_headers)) == (value, encoded)
    batch = harness.fetch(broker.kafka, topic, 0)[1]
    attributes = struct.unpack_from(">h", batch, 21)[0]
    assert attributes & 7 == 4, "the batch is still the zstd that was sent"
    assert len(batch) < len(value) / 4


def offsets_go_on_across_kills(broker):
    topic, expected = unique("kills"), 0
    for _ in range(3):
        log = Log(broker.kafka, topic)
        for _ in range(50):
            assert log.append(b"x") == expected
            expected += 1
        broker.kill()
        broker.start()
        log.close()
        assert watermarks(broker.kafka, topic) == (0, expected)
    scanner = Scanner(broker.kafka, topic)
    assert [offset for offset, _, _ in scanner.read_to(expected)] == list(range(expected))
    scanner.close()


def what_is_acknowledged_is_visible(broker):
    topic = unique("visible")
    log = Log(broker.kafka, topic)
    for n in range(20):
        offset = log.append(f"{n}".encode())
        scanner = Scanner(broker.kafka, topic, offset)
        assert scanner.read_to(1)[0][:2] == (offset, f"{n}".encode())
        scanner.close()
        assert watermarks(broker.kafka, topic) == (0, n + 1)
    log.close()


def positions(broker):
    topic = unique("positions")
    fill(broker.kafka, topic, 10)
    for start, first in [(OFFSET_BEGINNING, 0), (4, 4), (9, 9)]:
        scanner = Scanner(broker.kafka, topic, start)
        assert scanner.read_to(1)[0][0] == first, start
        scanner.close()
    waiting = [Scanner(broker.kafka, topic, start) for start in (OFFSET_END, 10)]
    assert all(scanner.is_silent(1.0) for scanner in waiting), "the end is no error, and nothing is there"
    log = Log(broker.kafka, topic)
    log.append(b"next")
    log.close()
    for scanner in waiting:
        assert scanner.read_to(1)[0][:2] == (10, b"next")
        scanner.close()
    harness.delete_records(broker.kafka, topic, 3)
    assert watermarks(broker.kafka, topic) == (3, 11)
    for wrong in (12, 2, 0):
        assert harness.fetch(broker.kafka, topic, wrong)[0] == 1, f"offset {wrong} is out of range"
        strict = Scanner(broker.kafka, topic, wrong, **{"auto.offset.reset": "error"})
        try:
            strict.read(LIMIT_S)
            raise AssertionError(f"offset {wrong} was read")
        except KafkaException as error:
            codes = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
            assert error.args[0].code() in codes, error
        strict.close()
        # As Milvus sets it: from the first record that is left.
        lenient = Scanner(broker.kafka, topic, wrong)
        assert lenient.read_to(1)[0][0] == 3
        lenient.close()


def watermarks_of_few_records(broker):
    topic = unique("watermarks")
    log = Log(broker.kafka, topic)
    log.producer.list_topics(topic, LIMIT_S)
    until("0 to 0", lambda: watermarks(broker.kafka, topic) == (0, 0))
    for n in range(3):
        log.append(b"x")
        assert watermarks(broker.kafka, topic) == (0, n + 1)
    log.close()


def fetches_wait(broker):
    topic = unique("wait")
    fill(broker.kafka, topic, 1)

    def took(offset, wait_ms, min_bytes):
        begun = time.monotonic()
        error, _ = harness.fetch(broker.kafka, topic, offset, wait_ms, min_bytes)
        assert error == 0
        return time.monotonic() - begun

    assert took(0, 5_000, 1) < 2, "there is something"
    assert 0.5 <= took(1, 500, 1) < 3, "there is nothing"
    assert 0.5 <= took(0, 500, 100_000) < 3, "there is too little"
    assert took(1, 0, 1) < 1, "it is not to wait"


def a_hundred_idle_scanners_cost_little(broker):
    topics = [unique("idle") for _ in range(4)]
    for topic in topics:
        fill(broker.kafka, topic, 1)
    scanners = [Scanner(broker.kafka, topics[n % 4], 1) for n in range(100)]
    assert all(scanner.is_silent(0.02) for scanner in scanners)
    begun_s, cpu_s = time.monotonic(), broker.cpu_s()
    time.sleep(10)
    share = (broker.cpu_s() - cpu_s) / (time.monotonic() - begun_s)
    print(f"    100 idle scanners: {100 * share:.1f}% of one processor")
    assert share < 0.2
    # After a restart all of them connect at once.
    broker.end()
    broker.start()
    begun_s = time.monotonic()
    for topic in topics:
        log = Log(broker.kafka, topic)
        log.insist(b"after")
        log.close()
    for scanner in scanners:
        recover(scanner, 1)
    print(f"    all of them went on {time.monotonic() - begun_s:.1f} s after a restart")
    for scanner in scanners:
        scanner.close()


def recover(scanner, count):
    """Reads on over the errors of a lost connection."""
    def reads():
        try:
            scanner.read()
        except KafkaException as error:
            assert not error.args[0].fatal(), error
        return len(scanner.records) >= count

    until(f"{count} records", reads)


def idle_connections_stay(broker):
    connection = harness.connect(broker.kafka)
    harness.api_versions_over(connection, 0)
    time.sleep(61)
    assert harness.api_versions_over(connection, 0), "the connection was closed while it was idle"
    connection.close()


def a_restart_loses_nothing_and_nobody(broker):
    topic, acknowledged, done = unique("restart"), [], threading.Event()
    log, scanner = Log(broker.kafka, topic), Scanner(broker.kafka, topic)

    def write():
        while not done.is_set():
            value = uuid.uuid4().bytes
            acknowledged.append((log.insist(value), value))

    writers = [threading.Thread(target=write) for _ in range(5)]
    for writer in writers:
        writer.start()
    for end in (broker.end, broker.kill, broker.kill):
        enough = len(acknowledged) + 100
        until("100 appends", lambda: len(acknowledged) >= enough)
        end()
        broker.start()
    enough = len(acknowledged) + 100
    until("100 appends", lambda: len(acknowledged) >= enough)
    done.set()
    for writer in writers:
        writer.join()
    log.close()
    _, end = watermarks(broker.kafka, topic)
    recover(scanner, end)
    seen = {(offset, value) for offset, value, _ in scanner.records}
    assert len(seen) == len(scanner.records) == end, "each offset once"
    assert not set(acknowledged) - seen, "an acknowledged record is lost"
    scanner.close()


def latency_under_the_load_of_a_cluster(broker):
    """Sixteen channels with five ticks a second each, and inserts of 2 MiB on one after the other."""
    logs = [Log(broker.kafka, unique(f"rootcoord-dml_{n}")) for n in range(16)]
    for log in logs:
        log.append(b"open")
    ticks_s, inserts_s, end = [], [], time.monotonic() + 20

    def timed(log, value, kept):
        begun = time.monotonic()
        log.append(value, {"_t": "tick"})
        kept.append(time.monotonic() - begun)

    def tick(n):
        time.sleep(0.2 * n / 16)
        while time.monotonic() < end:
            timed(logs[n], b"t" * 200, ticks_s)
            time.sleep(0.2)

    def insert():
        noise = random.Random(11)
        packs = [noise.randbytes(2 << 20) for _ in range(4)]
        for n in range(10_000):
            if time.monotonic() > end:
                return
            timed(logs[n % 16], packs[n % 4], inserts_s)
            time.sleep(0.5)

    with ThreadPoolExecutor(17) as pool:
        for running in [*(pool.submit(tick, n) for n in range(16)), pool.submit(insert)]:
            running.result()
    for log in logs:
        log.close()
    p50, p99 = (1e3 * sorted(ticks_s)[int(q * len(ticks_s))] - PRODUCER["linger.ms"] for q in (0.5, 0.99))
    largest = 1e3 * sorted(inserts_s)[len(inserts_s) // 2]
    print(f"    {len(ticks_s)} ticks: p50 {p50:.1f} ms, p99 {p99:.1f} ms beyond linger; inserts of 2 MiB: p50 {largest:.0f} ms")
    assert p99 < float(os.environ.get("WOODPECKER_MILVUS_P99_MS", "20"))


CHECKS = [
    workload_of_the_write_ahead_log, versions_that_are_offered, versions_that_are_chosen,
    topics_appear_for_writers_and_readers_at_once, asking_does_not_create, ten_megabytes, zstd_and_headers_come_back,
    offsets_go_on_across_kills, what_is_acknowledged_is_visible, positions, watermarks_of_few_records, fetches_wait,
    a_hundred_idle_scanners_cost_little, idle_connections_stay, a_restart_loses_nothing_and_nobody,
    latency_under_the_load_of_a_cluster]


def main(names):
    folder = harness.workspace("milvus")
    # Where librdkafka says that connections were refused while the broker was down, hundreds of times.
    with open(folder / "clients.log", "wb") as clients_log:
        os.dup2(clients_log.fileno(), sys.stderr.fileno())
    broker = harness.Woodpecker(folder, **SETTINGS).start()
    failed = []
    for check in CHECKS:
        if names and not any(name in check.__name__ for name in names):
            continue
        begun = time.monotonic()
        try:
            check(broker)
            print(f"{check.__name__} PASS {time.monotonic() - begun:.1f} s", flush=True)
        except Exception as error:  # Each check is reported, whatever ended it.
            traceback.print_exc(file=sys.stdout)
            print(f"{check.__name__} FAIL {error!r}", flush=True)
            failed.append(check.__name__)
            if broker.process.poll() is not None:
                broker.start()
    broker.end()
    print(f"logs in {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
