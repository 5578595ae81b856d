"""kafka-python, a client written in Python alone, against a broker.

usage: kafka_python.py HOST:PORT [TEST ...]      the tests of these names, or all
"""

import sys
import time
import uuid

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

KAFKA = sys.argv[1]
LIMIT_S = 30
admin = KafkaAdminClient(bootstrap_servers=KAFKA)


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


def create(name, partitions=1):
    topic = unique(name)
    admin.create_topics([NewTopic(topic, partitions, 1)])
    return topic


def send(topic, count, partition=0, **settings):
    producer = KafkaProducer(bootstrap_servers=KAFKA, acks="all", linger_ms=5, **settings)
    futures = [producer.send(topic, key=f"k{n}".encode(), value=f"v{n}".encode(), headers=[("h", b"1"), ("e", b"")],
                             partition=partition) for n in range(count)]
    offsets = [future.get(LIMIT_S).offset for future in futures]
    producer.close()
    return offsets


def consumer(*topics, **settings):
    return KafkaConsumer(*topics, bootstrap_servers=KAFKA, auto_offset_reset="earliest", enable_auto_commit=False,
                         **settings)


def take(client, count):
    records, deadline = [], time.monotonic() + LIMIT_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records after {LIMIT_S} s"
        for batch in client.poll(timeout_ms=200).values():
            records += batch
    return records


def records_and_codecs():
    # The codecs that need no package beside this client.
    for codec in [None, "gzip"]:
        for idempotence in [False, True]:
            topic = create("records")
            assert send(topic, 200, compression_type=codec, enable_idempotence=idempotence) == list(range(200))
            reader = consumer()
            reader.assign([TopicPartition(topic, 0)])
            seen = take(reader, 200)
            assert [(m.offset, m.key, m.value) for m in seen] == [
                (n, f"k{n}".encode(), f"v{n}".encode()) for n in range(200)]
            assert all(list(m.headers) == [("h", b"1"), ("e", b"")] for m in seen)
            reader.close()


def offsets_and_seeks():
    topic = create("offsets")
    send(topic, 10)
    partition = TopicPartition(topic, 0)
    reader = consumer()
    reader.assign([partition])
    assert reader.beginning_offsets([partition]) == {partition: 0}
    assert reader.end_offsets([partition]) == {partition: 10}
    found = reader.offsets_for_times({partition: 1})
    assert found[partition].offset == 0, found
    reader.seek(partition, 8)
    assert [m.offset for m in take(reader, 2)] == [8, 9]
    assert reader.position(partition) == 10
    reader.close()


def a_group_goes_on_where_it_committed():
    topic, group = create("group", 2), unique("group")
    for partition in range(2):
        send(topic, 20, partition)
    first = consumer(topic, group_id=group, max_poll_records=10)
    seen = take(first, 20)
    first.commit()
    first.close()
    second = consumer(topic, group_id=group)
    seen += take(second, 20)
    assert len({(m.partition, m.offset) for m in seen}) == 40, "a record came twice"
    partition = TopicPartition(topic, 0)
    second.commit({partition: OffsetAndMetadata(5, "note", -1)})
    assert second.committed(partition) == 5
    assert second.committed(partition, metadata=True).metadata == "note"
    second.close()
    listed = admin.list_group_offsets([group]) if hasattr(admin, "list_group_offsets") else None
    listed = listed[group] if listed else admin.list_consumer_group_offsets(group)
    assert listed[partition].offset == 5, listed


def a_group_shares_partitions():
    topic, group = create("share", 4), unique("group")
    members = [consumer(topic, group_id=group) for _ in range(2)]
    deadline = time.monotonic() + LIMIT_S
    while sorted(len(m.assignment()) for m in members) != [2, 2]:
        assert time.monotonic() < deadline, [m.assignment() for m in members]
        for member in members:
            assert not member.poll(timeout_ms=100)
    assert len(members[0].assignment() | members[1].assignment()) == 4
    for member in members:
        member.close()


def topics():
    topic = create("admin", 3)
    assert topic in admin.list_topics()
    try:
        admin.create_topics([NewTopic(topic, 3, 1)])
        raise AssertionError("the topic exists")
    except TopicAlreadyExistsError:
        pass
    [described] = admin.describe_topics([topic])
    assert len(described["partitions"]) == 3, described
    admin.delete_topics([topic])
    assert topic not in admin.list_topics()


for test in [records_and_codecs, offsets_and_seeks, a_group_goes_on_where_it_committed, a_group_shares_partitions, topics]:
    if sys.argv[2:] and test.__name__ not in sys.argv[2:]:
        continue
    begun = time.monotonic()
    test()
    print(f"{test.__name__}: {time.monotonic() - begun:.1f} s")
