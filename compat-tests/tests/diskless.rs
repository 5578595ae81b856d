//! A broker on a bucket keeps nothing else: throw its machine away, start another one anywhere, and all is there.

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::s3::Backend;
use compat_tests::wait::alone;
use compat_tests::workload::{Load, Workload, drain};
use rdkafka::producer::FutureRecord;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_goes_on_with_the_bucket_alone() {
    let _turn = alone().await;
    let machines = tempfile::tempdir().expect("a temporary folder");
    let first_folder = machines.path().join("first");
    let launch = Backend::S3.launch(&first_folder).await;
    let mut first = launch.start().await;
    let load = Load::small("kept", false);
    clients::create_topic(&launch.kafka, "kept", load.partitions).await;
    clients::create_topic(&launch.kafka, "empty", 7).await;
    let workload = Workload::start(&launch.kafka, load);
    workload.progress(1_000).await;
    let files: Vec<_> = std::fs::read_dir(&first_folder).expect("the folder is there").flatten().collect();
    assert_eq!(files.len(), 1, "a broker on a bucket writes nothing beside its log: {files:?}");
    first.kill().await;
    std::fs::remove_dir_all(&first_folder).expect("the machine is thrown away");

    let second = launch.elsewhere(&machines.path().join("second"));
    let _second_broker = second.start().await;
    let mut history = workload.abandon().await;
    for partition in history.sent_partitions() {
        drain(&second.kafka, &partition, &mut history).await;
    }
    history.assert_sound(&Rules::plain_without_retries(), "after the machine was lost");
    assert!(history.acknowledged() >= 1_000);
    assert_eq!(clients::watermarks(&second.kafka, "empty", 6).await, (0, 0), "metadata was in the bucket too");

    // Offsets go on where they ended.
    let (_, end) = clients::watermarks(&second.kafka, "kept", 0).await;
    let producer = clients::producer(&second.kafka, &[]);
    let record = FutureRecord::<(), str>::to("kept").partition(0).payload("more");
    let delivered = producer.send(record, clients::LIMIT).await.expect("the second machine acknowledges");
    assert_eq!(delivered.offset, end);
}
