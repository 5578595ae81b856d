//! Pages of topics and partitions: every partition once, whatever the page size.

use kafka_protocol::messages::describe_topic_partitions_request as request;

use super::*;
use crate::api::testing::{TestBroker, name};
use crate::api::typed;
use crate::topics::Configs;

async fn ask(
    test: &TestBroker,
    topics: &[&str],
    limit: i32,
    from: Option<(&str, i32)>,
) -> DescribeTopicPartitionsResponse {
    let topics = topics.iter().map(|topic| request::TopicRequest::default().with_name(name(topic)));
    let cursor = from.map(|(topic, partition)| {
        request::Cursor::default().with_topic_name(name(topic)).with_partition_index(partition)
    });
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor);
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    test.call(handler, 0, &request).await
}

fn seen(response: &DescribeTopicPartitionsResponse) -> Vec<(String, i32)> {
    let of = |topic: &DescribeTopicPartitionsResponseTopic| {
        let name = topic.name.as_ref().unwrap().to_string();
        topic.partitions.iter().map(|it| (name.clone(), it.partition_index)).collect::<Vec<_>>()
    };
    response.topics.iter().flat_map(of).collect()
}

/// "a" with 3 partitions, "t" with 2, "u" with 4.
async fn filled() -> TestBroker {
    let test = TestBroker::new(1 << 20, 2).await;
    for (name, partitions) in [("u", 4), ("a", 3)] {
        test.broker.topics.create(name, partitions, Configs::new(), |_| ()).await.unwrap();
    }
    test
}

#[tokio::test]
async fn every_partition_is_seen_once_whatever_the_page() {
    let test = filled().await;
    let everything: Vec<(String, i32)> = [("a", 3), ("t", 2), ("u", 4)]
        .iter()
        .flat_map(|(name, partitions)| (0..*partitions).map(|partition| ((*name).to_owned(), partition)))
        .collect();
    for limit in [1, 2, 3, 4, 5, 8, 9, 2_000, i32::MAX] {
        for topics in [&[][..], &["u", "t", "a", "t"]] {
            let mut all = Vec::new();
            let mut from: Option<(String, i32)> = None;
            loop {
                let cursor = from.as_ref().map(|(topic, partition)| (topic.as_str(), *partition));
                let response = ask(&test, topics, limit, cursor).await;
                let page = seen(&response);
                assert!(page.len() <= limit as usize);
                all.extend(page);
                let Some(next) = response.next_cursor else { break };
                from = Some((next.topic_name.to_string(), next.partition_index));
            }
            assert_eq!(all, everything, "pages of {limit}");
        }
    }
}

#[tokio::test]
async fn topics_that_are_not_there_say_so() {
    let test = filled().await;
    let response = ask(&test, &["t", "nobody", "no body"], 100, None).await;
    let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
    let invalid = ResponseError::InvalidTopicException.code();
    assert_eq!(codes, [invalid, ResponseError::UnknownTopicOrPartition.code(), 0]);
    assert_eq!(response.topics[2].topic_id, test.topic.id);
    assert_eq!(response.topics[2].partitions[0].isr_nodes, [BrokerId(0)]);
    assert!(response.next_cursor.is_none());
    // The topic of the cursor was deleted meanwhile.
    let rest = ask(&test, &[], 100, Some(("s", 1))).await;
    assert_eq!(seen(&rest).len(), 6);
}
