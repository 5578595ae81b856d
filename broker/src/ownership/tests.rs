//! One check a second while asked, none while idle; a lost log is noticed and stays lost.

use super::*;
use crate::partition::testing::FakeLog;

/// A log, and the ownership of it.
fn owned() -> (Arc<FakeLog>, Arc<dyn Log>, Ownership) {
    let fake = FakeLog::new(5);
    let log: Arc<dyn Log> = fake.clone();
    let ownership = Ownership::new();
    ownership.guard(&log);
    (fake, log, ownership)
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_noticed_within_a_second_and_for_good() {
    let (fake, _log, ownership) = owned();
    ownership.confirm().await.unwrap();
    fake.unfenced.lock().fenced = true;
    ownership.confirm().await.expect("checked less than a second ago");
    tokio::time::advance(FRESH_FOR).await;
    assert!(matches!(ownership.confirm().await, Err(Error::Fenced { .. })));
    assert!(matches!(ownership.lost().await, Loss::Fenced(why) if why.contains("fenced")));
    fake.unfenced.lock().fenced = false;
    assert!(ownership.confirm().await.is_err(), "what was lost stays lost");
}

#[tokio::test(start_paused = true)]
async fn one_check_a_second_serves_everybody_and_none_is_made_unasked() {
    let (fake, _log, ownership) = owned();
    for second in 1..=3 {
        let asked = (0..10).map(|_| ownership.confirm());
        assert!(futures::future::join_all(asked).await.iter().all(Result::is_ok));
        assert_eq!(fake.unfenced.lock().looks, second);
        tokio::time::advance(FRESH_FOR).await;
    }
    tokio::time::advance(FRESH_FOR * 100).await;
    assert_eq!(fake.unfenced.lock().looks, 3);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_looked_at_is_neither_confirmed_nor_lost() {
    let (fake, log, ownership) = owned();
    ownership.confirm().await.unwrap();
    fake.unfenced.lock().unreachable = true;
    tokio::time::advance(FRESH_FOR).await;
    assert_eq!(ownership.confirm().await.unwrap_err().kind(), ErrorKind::Retriable);
    fake.unfenced.lock().unreachable = false;
    ownership.confirm().await.unwrap();
    drop((fake, log));
    tokio::time::advance(FRESH_FOR).await;
    assert_eq!(ownership.confirm().await.unwrap_err().kind(), ErrorKind::Closed);
    ownership.declare_lost(Loss::Failed("told so".to_owned()));
    assert!(ownership.confirm().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn before_there_is_a_log_nothing_is_confirmed() {
    assert_eq!(Ownership::new().confirm().await.unwrap_err().kind(), ErrorKind::Closed);
}
