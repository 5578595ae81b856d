//! The one broker there is, in every version.

use super::*;
use crate::api::testing::TestBroker;
use crate::api::typed;

async fn ask(test: &TestBroker, version: i16, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    test.call(handler, version, &request).await
}

#[tokio::test]
async fn this_broker_is_the_cluster() {
    let test = TestBroker::new(1 << 20, 1).await;
    for version in 0..=2 {
        for asked in [false, true] {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(asked);
            let response = ask(&test, version, request).await;
            assert_eq!((response.error_code, response.controller_id), (0, BrokerId(0)));
            assert_eq!(response.cluster_id.as_str(), test.broker.cluster_id);
            let brokers: Vec<_> = response.brokers.iter().map(|b| (b.broker_id, b.host.to_string(), b.port)).collect();
            assert_eq!(brokers, [(BrokerId(0), "127.0.0.1".to_owned(), 9092)]);
            assert_eq!(response.cluster_authorized_operations == i32::MIN, !asked);
        }
    }
}

#[tokio::test]
async fn this_endpoint_is_no_controllers() {
    let test = TestBroker::new(1 << 20, 1).await;
    for (kind, code) in [(2, ResponseError::MismatchedEndpointType), (9, ResponseError::UnsupportedEndpointType)] {
        let response = ask(&test, 1, DescribeClusterRequest::default().with_endpoint_type(kind)).await;
        assert_eq!(response.error_code, code.code());
        assert!(response.brokers.is_empty());
    }
}
