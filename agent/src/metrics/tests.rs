use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

#[test]
fn arrays_follow_the_enums() {
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, at);
    }
    for (at, verdict) in Verdict::ALL.into_iter().enumerate() {
        assert_eq!(verdict as usize, at);
    }
    for (at, severity) in Severity::ALL.into_iter().enumerate() {
        assert_eq!(severity as usize, at);
    }
}

#[test]
fn text_has_every_count_under_its_name_and_labels() {
    let metrics = Metrics::new();
    metrics.set_submitted(Kind::Exec, 12);
    metrics.set_lost(Kind::File, 3);
    metrics.received(Kind::Connect, 7);
    metrics.judged(Kind::Connect);
    metrics.malformed(Class::File, None);
    metrics.malformed(Class::Exec, Some(Kind::Exit));
    metrics.batch(100);
    metrics.queue_length(Queue::JsonLines, 9);
    metrics.verdict(Verdict::Unauthorized, Severity::Critical);
    metrics.digest_from_kernel();
    metrics.digest_computed(Duration::from_millis(2));
    metrics.digest_undetermined(Undetermined::TooLarge);
    metrics.document_refused();
    metrics.asked(Asking::Failed);
    metrics.images(ImageKind::NoSbom, 4);
    metrics.images(ImageKind::PlatformUnproven, 2);
    metrics.dropped(Sink::JsonLines, 5);
    metrics.clients(Sink::Events, 1);
    let lookups =
        Lookups { unresolved: 1, inherited: 2, searched: 3, cut: 4, put_off: 10, healed: 5, refused: 6 };
    metrics.set_lookups(lookups);
    metrics.processes(7, 8);
    metrics.recording_lost(9);
    metrics.file_unread();
    let text = metrics.text();
    for line in [
        r#"muster_records_submitted_total{ring="exec",kind="exec"} 12"#,
        r#"muster_records_lost_total{ring="file",kind="file"} 3"#,
        r#"muster_records_received_total{ring="network",kind="connect"} 7"#,
        r#"muster_records_judged_total{ring="network",kind="connect"} 1"#,
        r#"muster_records_malformed_total{ring="file",kind="unknown"} 1"#,
        r#"muster_records_malformed_total{ring="exec",kind="exit"} 1"#,
        r"muster_batch_events_count 1",
        r#"muster_queue_length{queue="json_lines"} 9"#,
        r#"muster_verdicts_total{verdict="unauthorized",severity="critical"} 1"#,
        r#"muster_digest_hits_total{origin="kernel"} 1"#,
        r"muster_digest_misses_total 1",
        r#"muster_digest_undetermined_total{reason="too_large"} 1"#,
        r#"muster_documents_total{outcome="refused"} 1"#,
        r#"muster_source_askings_total{outcome="failed"} 1"#,
        r#"muster_images{state="no_sbom"} 4"#,
        r#"muster_images{state="platform_unproven"} 2"#,
        r#"muster_feed_dropped_items_total{sink="json_lines"} 5"#,
        r#"muster_feed_clients{stream="events"} 1"#,
        r#"muster_workload_lookups_total{outcome="unresolved"} 1"#,
        r#"muster_workload_lookups_total{outcome="inherited"} 2"#,
        r#"muster_workload_lookups_total{outcome="searched"} 3"#,
        r#"muster_workload_lookups_total{outcome="cut"} 4"#,
        r#"muster_workload_lookups_total{outcome="put_off"} 10"#,
        r#"muster_processes_missed_total{outcome="healed"} 5"#,
        r#"muster_processes_missed_total{outcome="refused"} 6"#,
        r#"muster_processes{state="living"} 7"#,
        r#"muster_processes{state="exited"} 8"#,
        r"muster_recording_lost_events_total 9",
        r"muster_files_unread_total 1",
        r#"muster_stage_seconds_count{stage="digest"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
    assert_eq!(metrics.kind_counts(Kind::Exec), KindCounts { submitted: 12, ..KindCounts::default() });
    assert_eq!(metrics.malformed_unknown(), 1);
}

#[test]
fn what_waits_to_be_judged() {
    let counts = |submitted, malformed, received, judged| KindCounts {
        submitted,
        malformed,
        received,
        judged,
        ..KindCounts::default()
    };
    for (what, counts, expected) in [
        ("nothing", counts(5, 1, 4, 4), 0),
        ("decoded", counts(5, 1, 4, 1), 3),
        ("still in the ring", counts(9, 1, 4, 4), 4),
        ("the kernel's counter was read earlier", counts(2, 0, 4, 1), 3),
        ("it was read before the decoder's", counts(1, 2, 0, 0), 0),
    ] {
        assert_eq!(counts.waiting(), expected, "{what}");
    }
}

async fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

#[tokio::test]
async fn endpoint_answers_what_it_knows_and_refuses_the_rest() {
    let metrics = Metrics::new();
    let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(http::serve(listener, Arc::clone(&metrics)));
    let ask = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    let early = get(address, &ask("GET", "/healthz")).await;
    assert!(early.starts_with("HTTP/1.1 503 "), "{early}");
    metrics.set_ready(true);
    for (method, path, status, has) in [
        ("GET", "/healthz", "200", "ok\n"),
        ("GET", "/metrics", "200", "# EOF\n"),
        ("GET", "/else", "404", "/metrics or /healthz"),
        ("POST", "/metrics", "405", "expected GET"),
    ] {
        let answer = get(address, &ask(method, path)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        assert!(answer.contains(has), "{method} {path}: {answer}");
    }
    metrics.set_degraded(vec!["the attestation is gone".into(), "a key is gone".into()]);
    let answer = get(address, &ask("GET", "/healthz")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("degraded: a key is gone\n"), "{answer}");
    let answer = get(address, &ask("GET", "/readyz")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("degraded: the attestation is gone"),
        "{answer}"
    );
    metrics.set_degraded(Vec::new());
    let answer = get(address, &ask("GET", "/readyz")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    let error = http::bind(address).await.expect_err("the address is taken");
    assert!(error.to_string().contains("set metrics.listen"), "{error}");
}

#[tokio::test]
async fn endpoint_serves_no_more_connections_than_it_has_room_for() {
    let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(http::serve(listener, Metrics::new()));
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(TcpStream::connect(address).await.expect("connect"));
    }
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut waits = tokio::spawn(get(address, request));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waits).await;
    assert!(early.is_err(), "answered beyond the limit: {early:?}");
    idle.pop();
    let answer =
        tokio::time::timeout(Duration::from_secs(3), waits).await.expect("in time").expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}
