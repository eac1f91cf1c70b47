//! Order, history, filters, slow clients.

use super::*;
use crate::event::{Body, Event, Task};
use crate::metrics::Sink;

#[tokio::test]
async fn slow_client_is_told_what_it_missed_at_its_place() {
    let feed = feed(&config());
    let mut slow = feed.watch(Filter::default(), None).expect("subscribed");
    let publish = |count| (0..count).for_each(|_| feed.publish(bare()));
    publish(10);
    assert_eq!(shape(&drain(&mut slow).await), "S0 1 2 3 4 m6", "4 wait behind S0");
    publish(2);
    assert_eq!(shape(&drain(&mut slow).await), "11 12");
    publish(7);
    assert_eq!(slow.next().await.map(|item| shape(&[item])).as_deref(), Some("13"));
    publish(1);
    assert_eq!(shape(&drain(&mut slow).await), "14 15 16 m3 20");
    assert_eq!(feed.metrics.dropped_count(Sink::Watch), 9);
}

#[tokio::test]
async fn client_that_never_reads_does_not_hold_up_publishing() {
    let feed = feed(&config());
    let _stuck = feed.watch(Filter::default(), None).expect("subscribed");
    let mut reader = feed.watch(Filter::default(), None).expect("subscribed");
    // Publishing does not wait at all: on this runtime of one thread nobody could read meanwhile.
    (0..100_000).for_each(|_| feed.publish(bare()));
    assert_eq!(shape(&drain(&mut reader).await), "S0 1 2 3 4 m99996");
}

#[tokio::test]
async fn history_comes_first_and_what_left_it_is_told() {
    let feed = feed(&config());
    (0..12).for_each(|_| feed.publish(bare()));
    let run = feed.origin().run.clone();
    for (after, expected) in [
        (None, "S12"),
        (Some(0), "S12 m4 5 6 7 8 9 10 11 12"),
        (Some(3), "S12 m1 5 6 7 8 9 10 11 12"),
        (Some(4), "S12 5 6 7 8 9 10 11 12"),
        (Some(10), "S12 11 12"),
        (Some(12), "S12"),
        (Some(500), "S12 n4 5 6 7 8 9 10 11 12"),
    ] {
        // A client that does not know its run is believed as long as its number can be of this one.
        for run in [None, Some(run.clone())] {
            let after = after.map(|sequence| After { sequence, run });
            let mut client = feed.watch(Filter::default(), after.clone()).expect("subscribed");
            assert_eq!(shape(&drain(&mut client).await), expected, "after {after:?}");
        }
    }
    // Of an earlier run, whose numbers this one has passed.
    for sequence in [0, 7, 12, 500] {
        let after = Some(After { sequence, run: Some("0".repeat(32)) });
        let mut client = feed.watch(Filter::default(), after).expect("subscribed");
        assert_eq!(shape(&drain(&mut client).await), "S12 n4 5 6 7 8 9 10 11 12", "after {sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_live_join_without_gap_or_duplicate_while_others_publish() {
    const EACH: u64 = 2000;
    let config = config::Feed { history: 100_000, client_queue: 100_000, ..config() };
    let feed = Arc::new(feed(&config));
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let feed = Arc::clone(&feed);
            std::thread::spawn(move || (0..EACH).for_each(|_| feed.publish(bare())))
        })
        .collect();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(feed.watch(Filter::default(), Some(0.into())).expect("subscribed"));
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    publishers.into_iter().for_each(|thread| thread.join().expect("publisher"));
    for mut client in clients {
        let Some(Item::Subscribed(_)) = client.next().await else { panic!("expected Subscribed first") };
        for expected in 1..=2 * EACH {
            let Some(Item::One(finding)) = client.next().await else { panic!("expected {expected}") };
            assert_eq!(finding.sequence, expected);
        }
    }
}

#[tokio::test]
async fn filters_apply_before_queueing() {
    let feed = feed(&config::Feed { history: 100, ..config() });
    let named = |filter: Filter| feed.watch(filter, Some(0.into())).expect("subscribed");
    let publish = || {
        for severity in Severity::ALL {
            feed.publish(Finding { severity, ..bare() });
        }
        feed.publish(full());
        feed.publish(Finding {
            verdict: Verdict::Loss,
            kind: Kind::Lost,
            severity: Severity::Medium,
            ..bare()
        });
    };
    let cases = [
        (Filter { minimum_severity: Some(Severity::High), ..Filter::default() }, "4 5 6 7"),
        (Filter { verdicts: vec![Verdict::Modified, Verdict::Loss], ..Filter::default() }, "6 7"),
        (Filter { verdicts: vec![Verdict::Modified], ..Filter::default() }, "6 7"),
        (Filter { kinds: vec![Kind::Connect], ..Filter::default() }, "6 7"),
        (Filter { workloads: vec!["web".into()], ..Filter::default() }, "6 7"),
        (Filter { workloads: vec!["containerd://0123456789abcdef".into()], ..Filter::default() }, "6 7"),
        (Filter { workloads: vec!["we".into()], ..Filter::default() }, "7"),
        (
            Filter {
                workloads: vec!["host".into()],
                verdicts: vec![Verdict::Unauthorized],
                minimum_severity: Some(Severity::Critical),
                kinds: vec![Kind::Exec],
            },
            "5 7",
        ),
    ];
    let mut live: Vec<_> = cases.iter().map(|(filter, _)| named(filter.clone())).collect();
    publish();
    for ((filter, expected), live) in cases.into_iter().zip(&mut live) {
        assert_eq!(shape(&drain(live).await), format!("S0 {expected}").trim_end(), "live {filter:?}");
        let history = drain(&mut named(filter.clone())).await;
        assert_eq!(shape(&history), format!("S7 {expected}").trim_end(), "history {filter:?}");
    }
    assert_eq!(feed.metrics.dropped_count(Sink::Watch), 0);
}

#[tokio::test]
async fn clients_come_go_and_are_limited() {
    let feed = feed(&config());
    let mut clients: Vec<_> = (0..64).map(|_| feed.watch(Filter::default(), None).expect("room")).collect();
    assert_eq!(feed.watch(Filter::default(), None).expect_err("no room"), NotSubscribed::TooMany);
    assert_eq!(feed.metrics.client_count(Sink::Watch), 64);
    clients.pop();
    let _late = feed.watch(Filter::default(), None).expect("room again");
    drop(clients);
    assert_eq!(feed.metrics.client_count(Sink::Watch), 1);
}

#[tokio::test]
async fn shutdown_ends_streams_behind_what_is_queued() {
    let feed = feed(&config());
    let client = feed.watch(Filter::default(), None).expect("subscribed");
    feed.publish(bare());
    feed.shutdown(Duration::from_secs(1)).await;
    let rest: Vec<_> = client.collect().await;
    assert_eq!(shape(&rest), "S0 1");
    assert_eq!(feed.watch(Filter::default(), None).expect_err("closed"), NotSubscribed::Closed);
}

#[tokio::test]
async fn raw_events_reach_those_who_asked() {
    let feed = feed(&config());
    let event = |body| Event { time_ns: 1, flavour: Flavour::Lsm, task: Task::default(), body };
    let exit = event(Body::Exit { status: 256 });
    let fork = event(Body::Fork { parent: ProcessId::default() });
    feed.event(&exit);
    let mut exits = feed.events(vec![Kind::Exit]).expect("subscribed");
    let mut all = feed.events(Vec::new()).expect("subscribed");
    feed.event(&fork);
    feed.event(&exit);
    let one = |event: &Event| Item::One(Arc::new(event.clone()));
    assert_eq!(drain(&mut exits).await, [Item::Subscribed(0), one(&exit)]);
    assert_eq!(drain(&mut all).await, [Item::Subscribed(0), one(&fork), one(&exit)]);
    (0..9).for_each(|_| feed.event(&exit));
    let items = drain(&mut all).await;
    assert_eq!(items.len(), 5, "4 fit");
    assert_eq!(items[4], Item::Missed(5));
}
