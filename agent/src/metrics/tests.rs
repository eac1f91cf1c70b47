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
    metrics.digest_left_to_agent(Unhashed::OverBudget);
    metrics.digest_computed(Duration::from_millis(2));
    metrics.digest_undetermined(&Unread::TooLarge);
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
        r#"muster_digest_left_to_agent_total{reason="over_budget"} 1"#,
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

async fn serving(metrics: &Arc<Metrics>) -> SocketAddr {
    let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(http::serve(listener, Arc::clone(metrics)));
    address
}

fn ask(method: &str, path: &str, accept: &str) -> String {
    let accept = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{accept}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn endpoint_answers_what_it_knows_and_refuses_the_rest() {
    let metrics = Metrics::new();
    let address = serving(&metrics).await;
    let early = get(address, &ask("GET", "/healthz", "")).await;
    assert!(early.starts_with("HTTP/1.1 503 "), "{early}");
    metrics.set_ready(true);
    for (method, path, status, has) in [
        ("GET", "/healthz", "200", "ok\n"),
        ("GET", "/metrics", "200", "muster_build_info"),
        ("GET", "/else", "404", "/metrics or /healthz"),
        ("POST", "/metrics", "405", "expected GET or HEAD"),
    ] {
        let answer = get(address, &ask(method, path, "")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        assert!(answer.contains(has), "{method} {path}: {answer}");
    }
    metrics.set_degraded(vec!["the attestation is gone".into(), "a key is gone".into()]);
    let answer = get(address, &ask("GET", "/healthz", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("degraded: a key is gone\n"), "{answer}");
    let answer = get(address, &ask("GET", "/readyz", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("degraded: the attestation is gone"),
        "{answer}"
    );
    metrics.set_degraded(Vec::new());
    let answer = get(address, &ask("GET", "/readyz", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    for (path, status) in [("/healthz", "200"), ("/metrics", "200"), ("/else", "404")] {
        let answer = get(address, &ask("HEAD", path, "")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "no body to HEAD {path}: {answer}");
    }
    let error = http::bind(address).await.expect_err("the address is taken");
    assert!(error.to_string().contains("set metrics.listen"), "{error}");
}

#[tokio::test]
async fn each_client_gets_the_format_that_it_asks_for() {
    let address = serving(&Metrics::new()).await;
    // What Prometheus 2.53 sends.
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, open) in [
        ("", false),
        ("*/*", false),
        ("text/plain", false),
        ("application/openmetrics-text", true),
        (prometheus, true),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", false),
        ("application/openmetrics-text;q=0", false),
    ] {
        let answer = get(address, &ask("GET", "/metrics", accept)).await;
        let kind =
            if open { "application/openmetrics-text; version=1.0.0" } else { "text/plain; version=0.0.4" };
        assert!(answer.contains(&format!("content-type: {kind}; charset=utf-8\r\n")), "{accept}: {answer}");
        assert_eq!(answer.contains("# EOF"), open, "{accept}");
        let family =
            if open { "# TYPE muster_verdicts counter\n" } else { "# TYPE muster_verdicts_total counter\n" };
        assert!(answer.contains(family), "{accept}: {answer}");
    }
}

#[test]
fn each_family_of_the_classic_format_has_its_help_and_its_type() {
    let metrics = Metrics::new();
    metrics.set_sensor(Flavour::Lsm, "6.12.1 \"x\"");
    let text = classic::classic(&metrics.text());
    let (mut helped, mut typed) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name)) => helped.push(name),
            (Some("#"), Some("TYPE"), Some(name)) => typed.push((name, words.next().expect("a type"))),
            (Some(sample), Some(value), None) => {
                let name = sample.split('{').next().expect("a name");
                let (family, kind) = typed.last().expect("a type before each sample");
                let suffix = name.strip_prefix(family).expect(line);
                let good: &[_] = if *kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(good.contains(&suffix), "{line} is not of {family}");
                assert_eq!(*kind == "counter", family.ends_with("_total"), "{line}");
                value.parse::<f64>().expect(line);
            }
            _ if line.starts_with("muster_sensor_info") => {}
            _ => panic!("{line:?}"),
        }
    }
    assert_eq!(helped, typed.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for line in [
        r#"muster_sensor_info{flavour="lsm",kernel="6.12.1 \"x\""} 1"#,
        concat!(r#"muster_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        r#"muster_stage_seconds_bucket{le="0.00003",stage="judged"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).parse::<f64>().expect("a number")
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") > 2.0 && value("process_max_fds") > value("process_open_fds"));
    assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    let started = std::time::UNIX_EPOCH + Duration::from_secs_f64(value("process_start_time_seconds"));
    // The kernel's time of boot is a whole second.
    assert!(started < SystemTime::now() + Duration::from_secs(2), "{started:?}");
}

#[tokio::test]
async fn connections_that_ask_nothing_keep_nobody_out() {
    let metrics = Metrics::new();
    metrics.set_ready(true);
    let address = serving(&metrics).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(address).await.expect("connect"));
    }
    let request = ask("GET", "/healthz", "");
    let asked = get(address, &request);
    let answer = tokio::time::timeout(Duration::from_secs(1), asked).await.expect("at once");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // They are bounded: the oldest were ended.
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(1), idle[0].read(&mut byte)).await.expect("at once");
    assert!(!matches!(ended, Ok(1)), "{ended:?}");
}
