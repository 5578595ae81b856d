"""confluent-kafka (librdkafka) against a broker: produce, consume, groups and administration, each in a topic of its own.

usage: confluent.py HOST:PORT [TEST ...]      the tests of these names, or all
"""

import sys
import time
import uuid

from confluent_kafka import (
    Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition,
    OFFSET_BEGINNING, OFFSET_END, TIMESTAMP_CREATE_TIME)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType)

KAFKA = sys.argv[1]
LIMIT_S = 30
COMMON = {"bootstrap.servers": KAFKA, "broker.address.family": "v4"}
admin = AdminClient(COMMON)


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


def create(name, partitions=1, config=None):
    topic = unique(name)
    futures = admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])
    futures[topic].result(LIMIT_S)
    return topic


def until(what, holds):
    """Some changes show a moment later, in Kafka itself too."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.05)


def produce(topic, records, **settings):
    """Sends (key, value, headers, partition) and returns the acknowledged messages in the order of sending."""
    producer = Producer({**COMMON, **{name.replace("_", "."): value for name, value in settings.items()}})
    delivered = []

    def told(error, message):
        assert error is None, error
        delivered.append(message)

    for key, value, headers, partition in records:
        producer.produce(topic, key=key, value=value, headers=headers, partition=partition, on_delivery=told)
        producer.poll(0)
    assert producer.flush(LIMIT_S) == 0, "not everything was acknowledged"
    return delivered


def values(topic, count, partition=0, start=0):
    return produce(topic, [(None, f"{start + n}", None, partition) for n in range(count)])


def consumer(**settings):
    settings = {name.replace("_", "."): value for name, value in settings.items()}
    return Consumer({**COMMON, "group.id": "assigned", "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     **settings})


def take(client, count):
    """The next `count` records."""
    records, deadline = [], time.monotonic() + LIMIT_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records after {LIMIT_S} s"
        message = client.poll(0.2)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        records.append(message)
    return records


def keys_values_headers_and_times():
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        for idempotence in [False, True]:
            topic = create("records")
            headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)]
            sent = [(f"key-{n}", f"value-{n}" * (n % 40), headers, 0) for n in range(300)]
            delivered = produce(topic, sent, compression_type=codec, enable_idempotence=idempotence, linger_ms=5)
            assert [m.offset() for m in delivered] == list(range(300)), codec
            reader = consumer()
            reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            seen = take(reader, 300)
            assert [(m.key().decode(), m.value().decode(), m.headers()) for m in seen] == [s[:3] for s in sent], codec
            assert [m.offset() for m in seen] == list(range(300)), codec
            assert all(m.timestamp()[0] == TIMESTAMP_CREATE_TIME for m in seen), codec
            reader.close()


def seeks_watermarks_and_times():
    topic = create("seek")
    producer = Producer(COMMON)
    for n in range(10):
        producer.produce(topic, value=f"{n}", partition=0, timestamp=1_000_000 + 10 * n)
    assert producer.flush(LIMIT_S) == 0
    reader = consumer()
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=LIMIT_S) == (0, 10)
    for asked, found in [(0, 0), (1_000_000, 0), (1_000_041, 5), (1_000_090, 9), (1_000_091, OFFSET_END)]:
        [answer] = reader.offsets_for_times([TopicPartition(topic, 0, asked)], timeout=LIMIT_S)
        assert answer.offset == found, (asked, answer)
    reader.assign([TopicPartition(topic, 0, 7)])
    assert [m.value() for m in take(reader, 3)] == [b"7", b"8", b"9"]
    reader.seek(TopicPartition(topic, 0, 2))
    assert [m.offset() for m in take(reader, 2)] == [2, 3]
    reader.pause([TopicPartition(topic, 0)])
    assert reader.poll(0.5) is None
    reader.resume([TopicPartition(topic, 0)])
    assert take(reader, 1)[0].offset() == 4
    assert reader.position([TopicPartition(topic, 0)])[0].offset == 5
    reader.close()


def a_group_goes_on_where_it_committed():
    topic, group = create("group", 3), unique("group")
    for partition in range(3):
        values(topic, 20, partition)
    first = consumer(group_id=group)
    first.subscribe([topic])
    seen = take(first, 30)
    first.commit(asynchronous=False)
    committed = first.committed([TopicPartition(topic, p) for p in range(3)], timeout=LIMIT_S)
    assert sum(max(p.offset, 0) for p in committed) == 30, committed
    first.close()
    second = consumer(group_id=group)
    second.subscribe([topic])
    seen += take(second, 30)
    assert len({(m.partition(), m.offset()) for m in seen}) == 60, "a record came twice"
    described = admin.describe_consumer_groups([group])[group].result(LIMIT_S)
    assert described.state.name == "STABLE" and len(described.members) == 1, described
    assert {(p.topic, p.partition) for p in described.members[0].assignment.topic_partitions} == {
        (topic, p) for p in range(3)}
    assert group in {g.group_id for g in admin.list_consumer_groups().result(LIMIT_S).valid}
    second.close()


def a_group_shares_partitions():
    for strategy in ["range", "roundrobin", "cooperative-sticky"]:
        topic, group = create("share", 4), unique("group")
        members = [consumer(group_id=group, partition_assignment_strategy=strategy, session_timeout_ms=10_000,
                            heartbeat_interval_ms=300)
                   for _ in range(2)]
        for member in members:
            member.subscribe([topic])
        deadline = time.monotonic() + LIMIT_S
        while sorted(len(m.assignment()) for m in members) != [2, 2]:
            assert time.monotonic() < deadline, (strategy, [m.assignment() for m in members])
            for member in members:
                assert member.poll(0.1) is None
        held = {(p.topic, p.partition) for m in members for p in m.assignment()}
        assert held == {(topic, p) for p in range(4)}, strategy
        # One leaves, and the other takes over.
        members[0].close()
        while len(members[1].assignment()) != 4:
            assert time.monotonic() < deadline, strategy
            assert members[1].poll(0.1) is None
        members[1].close()


def offsets_of_groups():
    topic, group = create("offsets", 2), unique("group")
    values(topic, 10)
    client = consumer(group_id=group)
    client.commit(offsets=[TopicPartition(topic, 0, 4, metadata="note")], asynchronous=False)
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in range(2)])
    [listed] = [f.result(LIMIT_S) for f in admin.list_consumer_group_offsets([asked]).values()]
    assert [(p.partition, p.offset) for p in listed.topic_partitions] == [(0, 4), (1, -1001)], listed.topic_partitions
    [note] = client.committed([TopicPartition(topic, 0)], timeout=LIMIT_S)
    assert (note.offset, note.metadata) == (4, "note"), note
    changed = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 2)])
    [altered] = [f.result(LIMIT_S) for f in admin.alter_consumer_group_offsets([changed]).values()]
    assert altered.topic_partitions[0].error is None
    assert client.committed([TopicPartition(topic, 0)], timeout=LIMIT_S)[0].offset == 2
    client.close()
    admin.delete_consumer_groups([group])[group].result(LIMIT_S)
    assert group not in {g.group_id for g in admin.list_consumer_groups().result(LIMIT_S).valid}


def topics_and_partitions():
    topic = create("admin", 2)
    try:
        admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(LIMIT_S)
        raise AssertionError("the topic exists")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(LIMIT_S)
    until("five partitions", lambda: len(admin.list_topics(topic, timeout=LIMIT_S).topics[topic].partitions) == 5)
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(LIMIT_S)
    assert len(described.partitions) == 5 and not described.is_internal and described.topic_id is not None
    assert admin.describe_cluster().result(LIMIT_S).cluster_id
    values(topic, 10)
    partition = TopicPartition(topic, 0)
    assert admin.list_offsets({partition: OffsetSpec.latest()})[partition].result(LIMIT_S).offset == 10
    deleted = admin.delete_records([TopicPartition(topic, 0, 6)])[partition].result(LIMIT_S)
    assert deleted.low_watermark == 6, deleted
    assert admin.list_offsets({partition: OffsetSpec.earliest()})[partition].result(LIMIT_S).offset == 6
    reader = consumer()
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert [m.offset() for m in take(reader, 4)] == [6, 7, 8, 9]
    reader.close()
    admin.delete_topics([topic])[topic].result(LIMIT_S)
    until("the topic is gone", lambda: topic not in admin.list_topics(timeout=LIMIT_S).topics)


def configs():
    topic = create("configs", config={"max.message.bytes": "50000"})
    resource = ConfigResource(ResourceType.TOPIC, topic)

    def is_set_to(value):
        try:
            return next(iter(admin.describe_configs([resource]).values())).result(LIMIT_S)["max.message.bytes"].value == value
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART, error
            return False

    until("the size of creation", lambda: is_set_to("50000"))
    entry = ConfigEntry("max.message.bytes", "40000", incremental_operation=AlterConfigOpType.SET)
    next(iter(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])])
              .values())).result(LIMIT_S)
    until("the altered size", lambda: is_set_to("40000"))
    # It is kept: a larger batch is refused, a smaller one is not.
    values(topic, 1)
    try:
        produce(topic, [(None, "x" * 45_000, None, 0)])
        raise AssertionError("45,000 bytes are more than max.message.bytes")
    except AssertionError as error:
        assert isinstance(error.args[0], KafkaError) and error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, error


for test in [keys_values_headers_and_times, seeks_watermarks_and_times, a_group_goes_on_where_it_committed,
             a_group_shares_partitions, offsets_of_groups, topics_and_partitions, configs]:
    if sys.argv[2:] and test.__name__ not in sys.argv[2:]:
        continue
    begun = time.monotonic()
    test()
    print(f"{test.__name__}: {time.monotonic() - begun:.1f} s")
