//! Through the socket.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use muster_proto::v1;
use muster_proto::v1::sensor_client::SensorClient;
use muster_proto::v1::watch_response::Item as Answer;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::event::{Body, Event, FileRef, Task};
use crate::feed::client::{ConnectError, connect};
use crate::metrics::Sink;

struct Constant;

impl StatusSource for Constant {
    fn status(&self) -> v1::Status {
        v1::Status { kernel_release: "6.12".into(), processes: 3, ..v1::Status::default() }
    }
    fn explain(&self, asked: &Asked, image: Option<Sha256>) -> Vec<v1::Explanation> {
        vec![v1::Explanation { text: format!("{asked:?} {image:?}"), ..v1::Explanation::default() }]
    }
}

async fn served(at: &Path) -> Feed {
    let config = config::Feed { socket: at.to_owned(), history: 100, client_queue: 8, json_lines: None };
    let feed = feed(&config);
    feed.serve(Socket::bind(at).expect("a socket"), Arc::new(Constant)).await.expect("served");
    feed
}

async fn next(answers: &mut tonic::Streaming<v1::WatchResponse>) -> Answer {
    let answer =
        tokio::time::timeout(Duration::from_secs(5), answers.message()).await.expect("an answer in time");
    answer.expect("no error").expect("no end").item.expect("an item")
}

async fn watch(
    client: &mut SensorClient<Channel>,
    filter: &Filter,
    after: Option<u64>,
) -> tonic::Streaming<v1::WatchResponse> {
    client
        .watch(convert::watch_request(filter, after.map(After::from).as_ref()))
        .await
        .expect("watching")
        .into_inner()
}

fn subscribed(feed: &Feed, sequence: u64) -> v1::Subscribed {
    let origin = feed.origin();
    v1::Subscribed { sequence, run: origin.run.clone(), node: origin.node.clone() }
}

#[test]
fn finding_survives_the_way_through_a_message() {
    for finding in [full(), Finding { time: UNIX_EPOCH, ..bare() }] {
        let message = convert::finding(&finding);
        let encoded = prost::Message::encode_to_vec(&message);
        let decoded = <v1::Finding as prost::Message>::decode(encoded.as_slice()).expect("decoded");
        assert_eq!(convert::finding_from(decoded).expect("converted"), finding);
    }
    for verdict in Verdict::ALL {
        let message = convert::finding(&Finding { verdict, ..bare() });
        let name = convert::verdict(verdict).as_str_name();
        assert_eq!(name.trim_start_matches("VERDICT_").to_lowercase(), verdict.as_str());
        assert_eq!(convert::finding_from(message).expect("converted").verdict, verdict);
    }
}

#[test]
fn message_of_another_version_is_refused_by_field() {
    let good = || convert::finding(&full());
    for (message, field) in [
        (v1::Finding { verdict: 99, ..good() }, "verdict"),
        (v1::Finding { severity: 0, ..good() }, "severity"),
        (v1::Finding { workload: None, ..good() }, "workload"),
        (v1::Finding { time: None, ..good() }, "time"),
        (v1::Finding { time: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }), ..good() }, "time"),
        (v1::Finding { sha256: "abc".into(), ..good() }, "sha256"),
        (v1::Finding { path: r"/a\b".into(), ..good() }, "path"),
        (v1::Finding { operation: "melt".into(), ..good() }, "operation"),
    ] {
        let error = convert::finding_from(message).expect_err(field).to_string();
        assert!(error.starts_with(&format!("field `{field}`: expected ")), "{error}");
    }
}

#[tokio::test]
async fn client_gets_history_then_live_and_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run/muster.sock");
    let feed = served(&path).await;
    let metadata = fs::metadata(&path).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "only the agent's user may connect");
    let above = fs::metadata(path.parent().expect("a parent")).expect("the directory").permissions().mode();
    assert_eq!(above & 0o777, 0o755);

    feed.publish(full());
    feed.publish(bare());
    let mut client = connect(&path).await.expect("connected");
    let mut answers = watch(&mut client, &Filter::default(), Some(0)).await;
    assert_eq!(next(&mut answers).await, Answer::Subscribed(subscribed(&feed, 2)));
    let Answer::Finding(first) = next(&mut answers).await else { panic!("expected a finding") };
    let origin = Some(Arc::clone(feed.origin()));
    assert_eq!(convert::finding_from(first).expect("converted"), Finding { sequence: 1, origin, ..full() });
    let Answer::Finding(second) = next(&mut answers).await else { panic!("expected a finding") };
    assert_eq!(second.sequence, 2);
    feed.publish(full());
    let Answer::Finding(third) = next(&mut answers).await else { panic!("expected a finding") };
    assert_eq!(third.sequence, 3);

    let filter = Filter { verdicts: vec![Verdict::Modified], ..Filter::default() };
    let mut filtered = watch(&mut client, &filter, Some(0)).await;
    assert_eq!(next(&mut filtered).await, Answer::Subscribed(subscribed(&feed, 3)));
    for sequence in [1, 3] {
        let Answer::Finding(finding) = next(&mut filtered).await else { panic!("expected a finding") };
        assert_eq!(finding.sequence, sequence);
    }

    feed.publish(bare());
    feed.shutdown(Duration::from_secs(5)).await;
    let Answer::Finding(last) = next(&mut answers).await else { panic!("expected a finding") };
    assert_eq!(last.sequence, 4, "what is queued is sent before the end");
    assert_eq!(answers.message().await.expect("a clean end"), None);
    assert!(!path.exists(), "the socket is removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_stops_reading_is_told_exactly_what_it_missed() {
    const MADE: u64 = 20_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let feed = served(&path).await;
    let mut client = connect(&path).await.expect("connected");
    let mut answers = watch(&mut client, &Filter::default(), None).await;
    assert_eq!(next(&mut answers).await, Answer::Subscribed(subscribed(&feed, 0)));
    // Were a client waited for, this would hang: nobody reads yet.
    (0..MADE).for_each(|_| feed.publish(full()));
    let (mut received, mut missed, mut expected) = (0, 0, 1);
    while received + missed < MADE {
        match next(&mut answers).await {
            Answer::Finding(finding) => {
                assert_eq!(finding.sequence, expected, "in order, with every gap told before it");
                expected += 1;
                received += 1;
            }
            Answer::Missed(gap) => {
                expected += gap.count;
                missed += gap.count;
            }
            Answer::Subscribed(_) => panic!("subscribed twice"),
        }
    }
    assert_eq!(received + missed, MADE);
    assert!(missed > 0, "20,000 findings do not fit in a queue of 8 and a socket");
    assert_eq!(feed.metrics.dropped_count(Sink::Watch), missed);
    feed.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn shutdown_cuts_off_a_client_that_does_not_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let config = config::Feed { socket: path.clone(), history: 0, client_queue: 10_000, json_lines: None };
    let feed = feed(&config);
    feed.serve(Socket::bind(&path).expect("a socket"), Arc::new(Constant)).await.expect("served");
    let mut client = connect(&path).await.expect("connected");
    let _unread = watch(&mut client, &Filter::default(), None).await;
    (0..5000).for_each(|_| feed.publish(full()));
    let started = std::time::Instant::now();
    feed.shutdown(Duration::from_millis(300)).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(250), "the client had no time to read: {took:?}");
    assert!(took < Duration::from_secs(30), "the client that does not read was waited for: {took:?}");
}

#[tokio::test]
async fn events_status_and_explanations_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let feed = served(&path).await;
    let mut client = connect(&path).await.expect("connected");
    feed.publish(full());

    let mut events = client.events(v1::EventsRequest::default()).await.expect("listening").into_inner();
    let mut message =
        async || events.message().await.expect("no error").expect("no end").item.expect("an item");
    assert_eq!(message().await, v1::events_response::Item::Subscribed(subscribed(&feed, 0)));
    let exe = FileRef { path: "/usr/bin/true".into(), ..FileRef::default() };
    let body = Body::Exec { exe, script: None };
    feed.event(&Event { time_ns: 1, flavour: Flavour::Lsm, task: Task::default(), body });
    let v1::events_response::Item::Event(event) = message().await else { panic!("expected an event") };
    assert_eq!(event.kind(), v1::Kind::Exec);
    assert_eq!(event.file.as_ref().map(|file| file.path.as_str()), Some("/usr/bin/true"));
    let boot = convert::time_from(event.time.as_ref()).expect("a time");
    assert!(boot < SystemTime::now() && text::event_row(&event).contains("/usr/bin/true"));

    let status = client.get_status(v1::GetStatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.sequence, status.processes, status.kernel_release.as_str()), (1, 3, "6.12"));
    assert_eq!((&status.run, &status.node), (&feed.origin().run, &feed.origin().node));
    assert_eq!(status.verdicts.get("modified"), Some(&1));
    assert_eq!(status.kinds.len(), Kind::ALL.len());
    assert!(status_text::status(&status).contains(", Linux 6.12, "));
    assert_eq!(status_text::status_json(&status)["verdicts"]["modified"], 1);

    use v1::explain_request::What;
    let digest = Sha256([0x44; 32]);
    for (what, image, expected) in [
        (Some(What::Path(r"/a\xff".into())), "", Ok(r#"Path("/a\xff") None"#.to_owned())),
        (Some(What::Sha256(digest.to_string())), "", Ok(format!("Sha256({digest:?}) None"))),
        (
            Some(What::Path("/a".into())),
            &*format!("sha256:{digest}"),
            Ok(format!("Path(\"/a\") Some({digest:?})")),
        ),
        (Some(What::Path("a".into())), "", Err("absolute")),
        (Some(What::Sha256("x".into())), "", Err("64 hexadecimal digits")),
        (Some(What::Path("/a".into())), "latest", Err("64 hexadecimal digits")),
        (None, "", Err("neither")),
    ] {
        let request = v1::ExplainRequest { what: what.clone(), image_digest: image.into() };
        match (client.explain(request).await, expected) {
            (Ok(answer), Ok(expected)) => assert_eq!(answer.into_inner().explanations[0].text, expected),
            (Err(status), Err(part)) => {
                assert_eq!(status.code(), Code::InvalidArgument);
                assert!(status.message().contains(part), "{}", status.message());
            }
            (answer, expected) => panic!("{what:?}: expected {expected:?}, found {answer:?}"),
        }
    }
    let request = v1::WatchRequest { verdicts: vec![99], ..v1::WatchRequest::default() };
    let refused = client.watch(request).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let request = v1::WatchRequest { after_run: "a run alone".into(), ..v1::WatchRequest::default() };
    let refused = client.watch(request).await.expect_err("refused");
    assert!(refused.message().contains("after_sequence beside it"), "{}", refused.message());
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let _feed = served(&path).await;
    let uri = format!("unix:{}", path.display());
    let channel =
        tonic::transport::Endpoint::from_shared(uri).expect("an address").connect().await.expect("connected");
    let request = HealthCheckRequest { service: "muster.v1.Sensor".into() };
    let health = HealthClient::new(channel.clone()).check(request).await.expect("health").into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let request = HealthCheckRequest { service: "ready".into() };
    let ready = HealthClient::new(channel.clone()).check(request).await.expect("health").into_inner();
    assert_eq!(ready.status(), ServingStatus::Serving);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection")
        .into_inner();
    let answer = answers.message().await.expect("no error").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("expected a list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"muster.v1.Sensor") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    use tonic_reflection::pb::v1alpha;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut answers = v1alpha::server_reflection_client::ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection as older clients ask for it")
        .into_inner();
    answers.message().await.expect("no error").expect("an answer");
}

#[tokio::test]
async fn socket_of_a_live_agent_is_left_alone_and_a_stale_one_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let again = || Socket::bind(&path).map(|_| ());

    fs::write(&path, "a file").expect("written");
    let error = again().expect_err("no socket").to_string();
    assert!(error.contains("is no socket; remove it"), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), b"a file");
    fs::remove_file(&path).expect("removed");

    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let refused = connect(&path).await.expect_err("nobody answers");
    assert!(matches!(refused, ConnectError::Refused(_)), "{refused}");
    let running = format!("an agent is running (pid {}) with the socket ", std::process::id());
    // From the moment that it is claimed, served or not; who connects meanwhile is answered when it is.
    let claimed = Socket::bind(&path).expect("a socket");
    let error = again().expect_err("in use").to_string();
    assert!(error.contains(&running), "{error}");
    let waiting = tokio::net::UnixStream::connect(&path).await.expect("connected");
    let first = feed(&config());
    first.serve(claimed, Arc::new(Constant)).await.expect("served");
    let mut byte = [0];
    waiting.readable().await.expect("an answer");
    waiting.try_read(&mut byte).expect("the server's settings");
    let error = again().expect_err("in use").to_string();
    assert!(error.contains(&running), "{error}");
    connect(&path).await.expect("the first still answers");
    first.shutdown(Duration::from_secs(5)).await;

    let missing = connect(&path).await.expect_err("gone");
    assert!(
        missing.to_string().contains("is the agent running? Look with `systemctl status muster`"),
        "{missing}"
    );
}

#[tokio::test]
async fn socket_of_a_successor_is_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let first = served(&path).await;
    fs::remove_file(&path).expect("removed");
    let error = Socket::bind(&path).map(|_| ()).expect_err("the first still runs").to_string();
    assert!(error.contains("an agent is running (pid "), "{error}");
    // Whoever takes the lock away, too, has a second one.
    fs::remove_file(directory.path().join("muster.sock.lock")).expect("removed");
    let _second = served(&path).await;
    first.shutdown(Duration::from_secs(5)).await;
    connect(&path).await.expect("the second answers");
}

#[tokio::test]
async fn nobody_else_can_lock_an_agent_out() {
    use nix::fcntl::{Flock, FlockArg};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("muster.sock");
    let lock = directory.path().join("muster.sock.lock");
    // Anybody may open a directory that is open to all, and lock it.
    let open = fs::File::open(directory.path()).expect("a directory");
    let _held = Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("locked");
    let began = std::time::Instant::now();
    let first = Socket::bind(&path).expect("a socket");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(fs::metadata(&lock).expect("there").permissions().mode() & 0o777, 0o600);
    drop(first);
    // What the last one left is no obstacle; what another user has put there is told.
    drop(Socket::bind(&path).expect("a socket"));
    fs::remove_file(&lock).expect("removed");
    std::os::unix::fs::symlink("/dev/null", &lock).expect("linked");
    Socket::bind(&path).map(|_| ()).expect_err("a link");
    fs::remove_file(&lock).expect("removed");
    fs::write(&lock, "").expect("written");
    assert!(
        nix::unistd::geteuid().is_root(),
        "needs root to give a file away: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo test"
    );
    std::os::unix::fs::chown(&lock, Some(65534), None).expect("given away");
    let error = Socket::bind(&path).map(|_| ()).expect_err("a foreign lock").to_string();
    assert!(error.contains("belongs to another user"), "{error}");
}
