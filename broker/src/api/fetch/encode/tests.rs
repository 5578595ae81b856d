//! Byte for byte what the generated encoder makes of the same answer, in every version.

use bytes::BytesMut;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_response as generated;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

use super::*;

/// What was answered, to be put together twice.
#[derive(Debug, Clone)]
struct Answer {
    partition: i32,
    error: Option<ResponseError>,
    high_watermark: i64,
    log_start_offset: i64,
    records: Vec<Bytes>,
}

fn ours(topics: &[(String, Uuid, Vec<Answer>)], error: Option<ResponseError>, read_committed: bool) -> FetchResponse {
    let partition = |answer: &Answer| PartitionAnswer {
        partition: answer.partition,
        error: answer.error,
        high_watermark: answer.high_watermark,
        log_start_offset: answer.log_start_offset,
        records: answer.records.clone(),
        permits: Vec::new(),
    };
    let topic = |(name, id, answers): &(String, Uuid, Vec<Answer>)| TopicAnswer {
        name: name.clone(),
        id: *id,
        partitions: answers.iter().map(partition).collect(),
    };
    FetchResponse { error, read_committed, topics: topics.iter().map(topic).collect() }
}

fn theirs(
    topics: &[(String, Uuid, Vec<Answer>)],
    error: Option<ResponseError>,
    read_committed: bool,
    version: i16,
) -> generated::FetchResponse {
    let partition = |answer: &Answer| {
        generated::PartitionData::default()
            .with_partition_index(answer.partition)
            .with_error_code(answer.error.map_or(0, |error| error.code()))
            .with_high_watermark(answer.high_watermark)
            .with_last_stable_offset(answer.high_watermark)
            .with_log_start_offset(if version >= 5 { answer.log_start_offset } else { -1 })
            .with_aborted_transactions(read_committed.then(Vec::new))
            .with_records(Some(Bytes::from(answer.records.concat())))
    };
    let topic = |(name, id, answers): &(String, Uuid, Vec<Answer>)| {
        let topic =
            generated::FetchableTopicResponse::default().with_partitions(answers.iter().map(partition).collect());
        match version >= FIRST_VERSION_WITH_TOPIC_IDS {
            true => topic.with_topic_id(*id),
            false => topic.with_topic(TopicName(StrBytes::from_string(name.clone()))),
        }
    };
    let code = if version >= FIRST_VERSION_WITH_SESSIONS { error.map_or(0, |error| error.code()) } else { 0 };
    generated::FetchResponse::default().with_error_code(code).with_responses(topics.iter().map(topic).collect())
}

fn compare(topics: &[(String, Uuid, Vec<Answer>)], error: Option<ResponseError>, read_committed: bool) {
    for version in 4..=18 {
        let expected = theirs(topics, error, read_committed, version);
        let mut bytes = BytesMut::new();
        expected.encode(&mut bytes, version).unwrap();
        let encoded = encode(ours(topics, error, read_committed), version);
        let encoded = Bytes::from(encoded.parts.concat());
        assert_eq!(encoded, bytes.freeze(), "version {version}");
        assert_eq!(generated::FetchResponse::decode(&mut encoded.clone(), version).unwrap(), expected);
    }
}

#[test]
fn records_are_handed_on_and_not_copied() {
    let records = vec![Bytes::from(vec![1; 10]), Bytes::from(vec![2; 20])];
    let answer = Answer { partition: 0, error: None, high_watermark: 1, log_start_offset: 0, records: records.clone() };
    let response = encode(ours(&[("t".to_owned(), Uuid::nil(), vec![answer])], None, false), 12);
    assert_eq!(response.parts.len(), 4);
    assert_eq!(response.parts[1].as_ptr(), records[0].as_ptr());
    assert_eq!(response.parts[2].as_ptr(), records[1].as_ptr());
}

#[test]
fn an_empty_answer_and_one_for_the_whole_request() {
    compare(&[], None, false);
    compare(&[], Some(ResponseError::FetchSessionIdNotFound), true);
}

fn an_answer() -> impl Strategy<Value = Answer> {
    let error = proptest::option::of(Just(ResponseError::OffsetOutOfRange));
    let records = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..4);
    (any::<i32>(), error, any::<i64>(), any::<i64>(), records).prop_map(
        |(partition, error, high_watermark, log_start_offset, records)| Answer {
            partition,
            error,
            high_watermark,
            log_start_offset,
            records: records.into_iter().map(Bytes::from).collect(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_encoded_as_the_generated_code_does(
        topics in proptest::collection::vec(
            ("[a-z.]{1,150}", any::<u128>().prop_map(Uuid::from_u128), proptest::collection::vec(an_answer(), 0..4)),
            0..4,
        ),
        read_committed in any::<bool>(),
    ) {
        compare(&topics, None, read_committed);
    }
}
