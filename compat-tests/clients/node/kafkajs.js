// kafkajs against a broker: topics, records, groups, offsets.
//
// usage: kafkajs.js HOST:PORT [TEST ...]      the tests of these names, or all
'use strict';

const assert = require('node:assert');
const { randomUUID } = require('node:crypto');
const { CompressionTypes, Kafka, logLevel } = require('kafkajs');

const LIMIT_MS = 30000;
const kafka = new Kafka({ clientId: 'tests', brokers: [process.argv[2]], logLevel: logLevel.ERROR });
const admin = kafka.admin();
const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

async function create(name, numPartitions = 1) {
  const topic = unique(name);
  assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true }), true);
  return topic;
}

async function send(topic, messages, options = {}, settings = {}) {
  const producer = kafka.producer(settings);
  await producer.connect();
  const [sent] = await producer.send({ topic, messages, ...options });
  await producer.disconnect();
  return sent;
}

const numbered = (count, partition = 0) => [...Array(count).keys()].map((n) => ({ value: `${n}`, partition }));

async function until(what, holds) {
  const deadline = Date.now() + LIMIT_MS;
  while (!holds()) {
    assert.ok(Date.now() < deadline, `not within ${LIMIT_MS} ms: ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// A member of a group that keeps what it gets, and which partitions it holds.
async function member(topic, groupId, settings = {}) {
  const consumer = kafka.consumer({ groupId, heartbeatInterval: 300, maxWaitTimeInMs: 200, ...settings });
  const records = [];
  const held = { partitions: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    held.partitions = payload.memberAssignment[topic] ?? [];
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({ eachMessage: async ({ partition, message }) => records.push({ partition, ...message }) });
  return { consumer, records, held };
}

async function recordsAndCodecs() {
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    for (const idempotent of [false, true]) {
      const topic = await create('records');
      const messages = [...Array(100).keys()].map((n) => ({
        key: `k${n}`, value: `v${n}`, headers: { one: 'x', many: ['y', 'z'] }, timestamp: `${1000000 + n}`,
      }));
      const sent = await send(topic, messages, { compression, acks: -1 }, { idempotent });
      assert.strictEqual(sent.errorCode, 0);
      assert.strictEqual(sent.baseOffset, '0');
      const { consumer, records } = await member(topic, unique('reader'));
      await until(() => `${records.length} of 100`, () => records.length >= 100);
      records.forEach((record, n) => {
        assert.strictEqual(record.offset, `${n}`);
        assert.strictEqual(record.key.toString(), `k${n}`);
        assert.strictEqual(record.value.toString(), `v${n}`);
        assert.strictEqual(record.timestamp, `${1000000 + n}`);
        assert.strictEqual(record.headers.one.toString(), 'x');
        assert.deepStrictEqual(record.headers.many.map(String), ['y', 'z']);
      });
      await consumer.disconnect();
    }
  }
}

async function aGroupGoesOnWhereItCommitted() {
  const topic = await create('group', 2);
  const groupId = unique('group');
  await send(topic, [...numbered(20), ...numbered(20, 1)]);
  const first = await member(topic, groupId);
  await until(() => `${first.records.length} of 40`, () => first.records.length >= 40);
  await first.consumer.disconnect();
  const offsets = await admin.fetchOffsets({ groupId, topics: [topic] });
  assert.deepStrictEqual(offsets[0].partitions.map((p) => p.offset).sort(), ['20', '20']);
  await send(topic, numbered(5));
  const second = await member(topic, groupId);
  await until(() => `${second.records.length} of 5`, () => second.records.length >= 5);
  assert.deepStrictEqual(second.records.map((r) => r.offset), ['20', '21', '22', '23', '24']);
  const { groups: [described] } = await admin.describeGroups([groupId]);
  assert.strictEqual(described.state, 'Stable');
  assert.strictEqual(described.members.length, 1);
  const { groups } = await admin.listGroups();
  assert.ok(groups.some((group) => group.groupId === groupId));
  await second.consumer.disconnect();
  await admin.resetOffsets({ groupId, topic, earliest: true });
  const third = await member(topic, groupId);
  await until(() => `${third.records.length} of 45`, () => third.records.length >= 45);
  await third.consumer.disconnect();
  await admin.deleteGroups([groupId]);
}

async function aGroupSharesPartitions() {
  const topic = await create('share', 4);
  const groupId = unique('share');
  const members = [await member(topic, groupId), await member(topic, groupId)];
  const shares = () => members.map(({ held }) => held.partitions.length);
  await until(() => `shares ${shares()}`, () => shares().every((share) => share === 2));
  const all = members.flatMap(({ held }) => held.partitions).sort();
  assert.deepStrictEqual(all, [0, 1, 2, 3]);
  await members[0].consumer.disconnect();
  await until(() => `shares ${shares()}`, () => shares()[1] === 4);
  await members[1].consumer.disconnect();
}

async function topicsAndOffsets() {
  const topic = await create('admin', 2);
  assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false, 'it exists');
  await send(topic, numbered(10));
  const at = (offsets) => offsets.sort((a, b) => a.partition - b.partition).map((p) => [p.offset, p.low, p.high]);
  assert.deepStrictEqual(at(await admin.fetchTopicOffsets(topic)), [['10', '0', '10'], ['0', '0', '0']]);
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  const { topics: [described] } = await admin.fetchTopicMetadata({ topics: [topic] });
  assert.strictEqual(described.partitions.length, 3);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] });
  assert.strictEqual((await admin.fetchTopicOffsets(topic)).find((p) => p.partition === 0).low, '4');
  const cluster = await admin.describeCluster();
  assert.ok(cluster.clusterId && cluster.brokers.length === 1);
  await admin.deleteTopics({ topics: [topic] });
  assert.ok(!(await admin.listTopics()).includes(topic));
}

(async () => {
  await admin.connect();
  for (const test of [recordsAndCodecs, aGroupGoesOnWhereItCommitted, aGroupSharesPartitions, topicsAndOffsets]) {
    if (process.argv.length > 3 && !process.argv.includes(test.name, 3)) continue;
    const begun = Date.now();
    await test();
    console.log(`${test.name}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  }
  await admin.disconnect();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
