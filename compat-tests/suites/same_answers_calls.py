"""The calls of same_answers.py, in their order: each one's name, whether the order of its lines counts, what it does.

All of them work on topics and groups that earlier ones made, so that both brokers have the same history.
"""

import time

from confluent_kafka import (
    Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, Producer, TopicCollection,
    TopicPartition)
from confluent_kafka.admin import (
    AclBindingFilter, AclOperation, AclPermissionType, AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource,
    NewPartitions, NewTopic, OffsetSpec, ResourcePatternType, ResourceType)

LIMIT_S = 30
CALLS = []


def call(name, run, ordered=False):
    CALLS.append((name, ordered, run))


TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
ALL_GROUPS = "org.apache.kafka.tools.GroupsCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"


def java(name, main, arguments, stdin="", ordered=False):
    call(name, lambda side: side.java(main, *arguments.split(), stdin=stdin), ordered)


def kcat(name, arguments, stdin="", ordered=True):
    call(name, lambda side: side.kcat(*arguments.split(), stdin=stdin), ordered)


def settle():
    """Kafka shows some changes of its metadata a moment after it has answered."""
    call("settle", lambda side: time.sleep(0.5) or "")


# Topics.
java("topics: create", TOPICS, "--create --topic one --partitions 3")
java("topics: create with a configuration", TOPICS, "--create --topic two --config max.message.bytes=20000 --config retention.ms=100000000")
java("topics: create, defaults", TOPICS, "--create --topic three")
settle()
java("topics: create what exists", TOPICS, "--create --topic one")
java("topics: create if it does not exist", TOPICS, "--create --topic one --if-not-exists")
java("topics: create with a bad name", TOPICS, "--create --topic bad/name")
java("topics: create with a name that is too long", TOPICS, f"--create --topic {'x' * 250}")
java("topics: create with names that collide", TOPICS, "--create --topic with.dot")
java("topics: create without partitions", TOPICS, "--create --topic none --partitions 0")
java("topics: create with an unknown configuration", TOPICS, "--create --topic none --config no.such=1")
java("topics: create with a bad value", TOPICS, "--create --topic none --config max.message.bytes=many")
java("topics: create with a value out of range", TOPICS, "--create --topic none --config max.message.bytes=-1")
java("topics: create with a bad choice", TOPICS, "--create --topic none --config cleanup.policy=shred")
java("topics: create with an assignment", TOPICS, "--create --topic assigned --replica-assignment 1,1")
java("topics: create with a broker that is not there", TOPICS, "--create --topic none --replica-assignment 7")
java("topics: list", TOPICS, "--list")
java("topics: describe", TOPICS, "--describe --topic one")
java("topics: describe a configured one", TOPICS, "--describe --topic two")
java("topics: describe several", TOPICS, "--describe --topic one|three")
java("topics: describe what is not there", TOPICS, "--describe --topic absent")
java("topics: describe if it exists", TOPICS, "--describe --topic absent --if-exists")
java("topics: describe, unavailable partitions", TOPICS, "--describe --unavailable-partitions")
java("topics: describe, with overrides", TOPICS, "--describe --topics-with-overrides")
java("topics: more partitions", TOPICS, "--alter --topic one --partitions 5")
settle()
java("topics: more partitions, seen", TOPICS, "--describe --topic one")
java("topics: fewer partitions", TOPICS, "--alter --topic one --partitions 2")
java("topics: as many partitions", TOPICS, "--alter --topic one --partitions 5")
java("topics: partitions of what is not there", TOPICS, "--alter --topic absent --partitions 5")

# Records and offsets.
java("produce: keys and headers", PRODUCER, "--topic three --reader-property parse.key=true --reader-property parse.headers=true", "a:1\tk1\tone\na:2\tk2\ttwo\nb:\tk3\tthree\n")
java("consume: everything", CONSUMER, "--topic three --partition 0 --offset earliest --max-messages 3 --formatter-property print.key=true --formatter-property print.headers=true --formatter-property print.offset=true", ordered=True)
java("consume: from an offset", CONSUMER, "--topic three --partition 0 --offset 1 --max-messages 2", ordered=True)
java("consume: nothing there", CONSUMER, "--topic two --partition 0 --offset earliest --timeout-ms 1500", ordered=True)
java("produce: too large for the topic", PRODUCER, "--topic two", "x" * 30_000 + "\n")


def produce_with_times(side):
    producer = Producer({"bootstrap.servers": side.kafka, "broker.address.family": "v4"})
    for at in [1_000, 3_000, 2_000, 3_000]:
        producer.produce("timed", f"at {at}", partition=0, timestamp=at)
    return f"{producer.flush(LIMIT_S)} are left"


call("produce: with times", produce_with_times)
for moment in ["-1", "-2", "-3", "-4", "latest", "earliest", "max-timestamp", "earliest-local", "0", "1001", "2000", "3000", "3001"]:
    java(f"offsets: at {moment}", OFFSETS, f"--topic timed --time {moment}")
java("offsets: of all topics", OFFSETS, "--exclude-internal-topics")
java("offsets: of some partitions", OFFSETS, "--topic-partitions one:0-2,three:0")
java("offsets: of what is not there", OFFSETS, "--topic absent")
kcat("kcat: produce", "-P -t four -K : -z zstd", "k:v1\nk:v2\n:v3\n")
kcat("kcat: consume", "-C -t four -e -q -f %p/%o/%k=%s\\n")
kcat("kcat: consume from the last", "-C -t four -o -1 -e -q")
kcat("kcat: offset by time", "-Q -t four:0:-1 -t four:0:-2")
kcat("kcat: from far beyond the end", "-C -t four -p 0 -o 1000 -e -q -X auto.offset.reset=error")
kcat("kcat: metadata", "-L -J -t four")
kcat("kcat: metadata of what is not there", "-L -J -t absent -X allow.auto.create.topics=false")

# Configurations.
java("configs: describe", CONFIGS, "--describe --entity-type topics --entity-name two")
java("configs: describe all of a topic", CONFIGS, "--describe --all --entity-type topics --entity-name two")
java("configs: change", CONFIGS, "--alter --entity-type topics --entity-name two --add-config max.message.bytes=30000,message.timestamp.type=LogAppendTime")
settle()
java("configs: changed", CONFIGS, "--describe --entity-type topics --entity-name two")
java("configs: remove", CONFIGS, "--alter --entity-type topics --entity-name two --delete-config max.message.bytes")
settle()
java("configs: removed", CONFIGS, "--describe --entity-type topics --entity-name two")
java("configs: an unknown one", CONFIGS, "--alter --entity-type topics --entity-name two --add-config no.such=1")
java("configs: remove an unknown one", CONFIGS, "--alter --entity-type topics --entity-name two --delete-config no.such")
java("configs: a bad value", CONFIGS, "--alter --entity-type topics --entity-name two --add-config max.message.bytes=many")
java("configs: of what is not there", CONFIGS, "--alter --entity-type topics --entity-name absent --add-config max.message.bytes=1000")
java("configs: describe what is not there", CONFIGS, "--describe --entity-type topics --entity-name absent")
java("configs: of a broker", CONFIGS, "--describe --all --entity-type brokers --entity-name 1")
java("configs: dynamic ones of a broker", CONFIGS, "--describe --entity-type brokers --entity-name 1")
java("configs: of a broker that is not there", CONFIGS, "--describe --entity-type brokers --entity-name 7")
java("configs: a fixed one of a broker", CONFIGS, "--alter --entity-type brokers --entity-name 1 --add-config num.partitions=3")

# Groups.
java("groups: none", GROUPS, "--list")
java("groups: consume in one", CONSUMER, "--topic three --group g1 --from-beginning --max-messages 2", ordered=True)
java("groups: list", GROUPS, "--list")
java("groups: list with states", GROUPS, "--list --state")
java("groups: list with types", GROUPS, "--list --type")
java("groups: list in a state", GROUPS, "--list --state Stable")
java("groups: list of all kinds", ALL_GROUPS, "--list")
java("groups: describe", GROUPS, "--describe --group g1")
java("groups: state", GROUPS, "--describe --group g1 --state")
java("groups: members", GROUPS, "--describe --group g1 --members")
java("groups: describe what is not there", GROUPS, "--describe --group absent")
java("groups: state of what is not there", GROUPS, "--describe --group absent --state")
for target in ["--to-earliest", "--to-latest", "--to-offset 1", "--to-offset 99", "--shift-by -1", "--to-datetime 2020-01-01T00:00:00.000", "--to-current"]:
    java(f"groups: reset {target}", GROUPS, f"--reset-offsets --group g1 --topic three {target} --dry-run")
java("groups: reset and do it", GROUPS, "--reset-offsets --group g1 --topic three --to-offset 1 --execute")
java("groups: it was reset", GROUPS, "--describe --group g1 --offsets")
java("groups: reset makes a group", GROUPS, "--reset-offsets --group g2 --topic one --to-earliest --execute")
java("groups: reset for what is not there", GROUPS, "--reset-offsets --group g1 --topic absent --to-earliest --execute")
java("groups: delete offsets", GROUPS, "--delete-offsets --group g2 --topic one")
java("groups: delete offsets of a topic that has none", GROUPS, "--delete-offsets --group g2 --topic three")
java("groups: delete", GROUPS, "--delete --group g2")
java("groups: delete what is not there", GROUPS, "--delete --group g2")


def while_a_member_holds(name, main, arguments):
    """The same with a live member in the group g3."""
    def run(side):
        member = Consumer({"bootstrap.servers": side.kafka, "group.id": "g3", "client.id": "member",
                           "auto.offset.reset": "earliest", "session.timeout.ms": 10_000})
        member.subscribe(["one"])
        deadline = time.monotonic() + LIMIT_S
        while not member.assignment() and time.monotonic() < deadline:
            member.poll(0.1)
        answer = side.java(main, *arguments.split())
        member.close()
        return answer

    call(name, run)


while_a_member_holds("groups: describe a live one", GROUPS, "--describe --group g3")
while_a_member_holds("groups: members of a live one", GROUPS, "--describe --group g3 --members --verbose")
while_a_member_holds("groups: state of a live one", GROUPS, "--describe --group g3 --state")
while_a_member_holds("groups: delete a live one", GROUPS, "--delete --group g3")
while_a_member_holds("groups: reset a live one", GROUPS, "--reset-offsets --group g3 --topic one --to-earliest --execute")
while_a_member_holds("groups: delete offsets of a live one", GROUPS, "--delete-offsets --group g3 --topic one")


# Deleting records.
def delete_records(name, topic, partition, offset):
    text = f'{{"partitions":[{{"topic":"{topic}","partition":{partition},"offset":{offset}}}],"version":1}}'
    call(name, lambda side: side.java(DELETE_RECORDS, "--offset-json-file", side.file("delete.json", text))
         .replace(str(side.folder), ""))


delete_records("delete records", "three", 0, 2)
java("delete records: seen", OFFSETS, "--topic three --time earliest")
java("delete records: what is left", CONSUMER, "--topic three --partition 0 --offset earliest --max-messages 1", ordered=True)
kcat("delete records: out of range", "-C -t three -p 0 -o 0 -e -q -X auto.offset.reset=error")
delete_records("delete records: once more", "three", 0, 1)
delete_records("delete records: beyond the end", "three", 0, 99)
delete_records("delete records: of what is not there", "absent", 0, 1)
delete_records("delete records: up to the end", "three", 0, -1)


# Administration through librdkafka.
def told(ask):
    """What a call answers, or the name of its error."""
    try:
        return ask()
    except KafkaException as error:
        return f"error {error.args[0].name()}: {error.args[0].str()}"
    except TimeoutError:
        return f"no answer within {LIMIT_S} s"


def each(futures, show=str):
    return "\n".join(f"{key}: {told(lambda: show(future.result(LIMIT_S)))}" for key, future in futures.items())


def admin(name, ask):
    def run(side):
        return told(lambda: str(ask(AdminClient({"bootstrap.servers": side.kafka, "broker.address.family": "v4"}))))

    call(f"librdkafka: {name}", run)


def entries(described):
    return "".join(
        f"\n{e.name}={e.value} source={e.source} default={e.is_default} read-only={e.is_read_only} sensitive={e.is_sensitive}"
        for e in described.values())


def change(resource, *changes):
    found = [ConfigEntry(name, value, incremental_operation=operation) for name, value, operation in changes]
    return [ConfigResource(ResourceType.TOPIC, resource, incremental_configs=found)]


admin("create, only to try", lambda a: each(a.create_topics([NewTopic("tried", 2, 1)], validate_only=True)))
admin("create, tried again", lambda a: each(a.create_topics([NewTopic("tried", 2, 1)])))
admin("create several, one of them wrong", lambda a: each(a.create_topics([NewTopic("five", 2, 1), NewTopic("one", 2, 1)])))
admin("create with a configuration", lambda a: each(a.create_topics([NewTopic("six", 2, 1, config={"retention.bytes": "1000000"})])))
admin("create with a codec", lambda a: each(a.create_topics([NewTopic("eight", 2, 1, config={"compression.type": "zstd"})])))
admin("create with many replicas", lambda a: each(a.create_topics([NewTopic("seven", 2, 3)])))
settle()
admin("partitions, only to try", lambda a: each(a.create_partitions([NewPartitions("five", 4)], validate_only=True)))
admin("partitions", lambda a: each(a.create_partitions([NewPartitions("five", 4)])))
admin("partitions, fewer", lambda a: each(a.create_partitions([NewPartitions("five", 1)])))
admin("partitions of what is not there", lambda a: each(a.create_partitions([NewPartitions("absent", 4)])))
admin("describe topics", lambda a: each(a.describe_topics(TopicCollection(["five", "absent"])), lambda t: f"{t.name} {t.is_internal} {[(p.id, p.leader.id, [r.id for r in p.replicas], [r.id for r in p.isr]) for p in t.partitions]}"))
admin("describe the cluster", lambda a: (lambda c: f"controller {c.controller.id} nodes {[n.id for n in c.nodes]}")(a.describe_cluster().result(LIMIT_S)))
admin("configurations of a topic", lambda a: each(a.describe_configs([ConfigResource(ResourceType.TOPIC, "six")]), entries))
admin("configurations of what is not there", lambda a: each(a.describe_configs([ConfigResource(ResourceType.TOPIC, "absent")]), entries))
admin("configurations of a broker", lambda a: each(a.describe_configs([ConfigResource(ResourceType.BROKER, "1")]), entries))
admin("configurations, append", lambda a: each(a.incremental_alter_configs(change("six", ("cleanup.policy", "compact", AlterConfigOpType.APPEND)))))
settle()
admin("configurations, subtract", lambda a: each(a.incremental_alter_configs(change("six", ("cleanup.policy", "compact", AlterConfigOpType.SUBTRACT)))))
admin("configurations, append to a number", lambda a: each(a.incremental_alter_configs(change("six", ("retention.ms", "5", AlterConfigOpType.APPEND)))))
admin("configurations, twice the same", lambda a: each(a.incremental_alter_configs(change("six", ("retention.ms", "5", AlterConfigOpType.SET), ("retention.ms", "6", AlterConfigOpType.SET)))))
admin("configurations, only to try", lambda a: each(a.incremental_alter_configs(change("six", ("retention.ms", "700000000", AlterConfigOpType.SET)), validate_only=True)))
admin("configurations, a bad one", lambda a: each(a.incremental_alter_configs(change("six", ("retention.ms", "soon", AlterConfigOpType.SET)))))
admin("configurations, all anew", lambda a: each(a.alter_configs([ConfigResource(ResourceType.TOPIC, "six", set_config={"max.message.bytes": "5000"})])))
settle()
admin("configurations, after all that", lambda a: each(a.describe_configs([ConfigResource(ResourceType.TOPIC, "six")]), lambda d: "\n".join(f"{e.name}={e.value}" for e in d.values() if not e.is_default)))
for spec in ["earliest", "latest", "max_timestamp"]:
    admin(f"offsets, {spec}", lambda a, spec=spec: each(a.list_offsets({TopicPartition("four", 0): getattr(OffsetSpec, spec)(), TopicPartition("four", 9): OffsetSpec.latest()}), lambda o: f"{o.offset}"))
admin("offsets by time, read committed", lambda a: each(a.list_offsets({TopicPartition("four", 0): OffsetSpec.for_timestamp(1)}, isolation_level=IsolationLevel.READ_COMMITTED), lambda o: f"{o.offset}"))
admin("delete records", lambda a: each(a.delete_records([TopicPartition("four", 0, 1), TopicPartition("four", 9, 1)]), lambda d: f"{d.low_watermark}"))
admin("delete records beyond the end", lambda a: each(a.delete_records([TopicPartition("four", 0, 99)]), lambda d: f"{d.low_watermark}"))
admin("groups", lambda a: sorted((g.group_id, g.is_simple_consumer_group, g.state.name, g.type.name) for g in a.list_consumer_groups().result(LIMIT_S).valid))
admin("groups that are empty", lambda a: sorted(g.group_id for g in a.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(LIMIT_S).valid))
admin("describe groups", lambda a: each(a.describe_consumer_groups(["g1", "absent"]), lambda g: f"{g.group_id} {g.state.name} {g.type.name} simple={g.is_simple_consumer_group} assignor={g.partition_assignor!r} coordinator={g.coordinator.id} members={len(g.members)}"))


def group_offsets(group, *partitions):
    return [ConsumerGroupTopicPartitions(group, list(partitions) or None)]


def offsets(answer):
    return sorted((p.topic, p.partition, p.offset, p.metadata, p.error and p.error.name()) for p in answer.topic_partitions)


def of_one(futures, show):
    [future] = futures.values()
    return show(future.result(LIMIT_S))


admin("offsets of a group", lambda a: of_one(a.list_consumer_group_offsets(group_offsets("g1")), offsets))
admin("offsets of an unknown group", lambda a: of_one(a.list_consumer_group_offsets(group_offsets("absent")), offsets))
admin("offsets of some partitions", lambda a: of_one(a.list_consumer_group_offsets(group_offsets("g1", TopicPartition("three", 0), TopicPartition("one", 1), TopicPartition("absent", 0))), offsets))
admin("alter offsets", lambda a: of_one(a.alter_consumer_group_offsets(group_offsets("g4", TopicPartition("one", 0, 0, "note"))), offsets))
admin("alter offsets of what is not there", lambda a: of_one(a.alter_consumer_group_offsets(group_offsets("g4", TopicPartition("absent", 0, 0))), offsets))
admin("delete groups", lambda a: each(a.delete_consumer_groups(["g4", "absent"])))
admin("delete topics", lambda a: each(a.delete_topics(["five", "absent"])))
admin("access control without an authorizer", lambda a: a.describe_acls(AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)).result(LIMIT_S))

# Deletion.
java("topics: delete", TOPICS, "--delete --topic one")
settle()
java("topics: delete what is not there", TOPICS, "--delete --topic one")
java("groups: offsets of a topic that was deleted", GROUPS, "--describe --group g3")
java("topics: list at the end", TOPICS, "--list --exclude-internal")
