//! The JSON lines sink: format, full disks, rotation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::metrics::Sink;

/// The line that `docs/FINDINGS.md` shows.
const GOLDEN: &str = include_str!("golden.json");

fn with_file(path: &Path) -> config::Feed {
    config::Feed { json_lines: Some(path.to_owned()), ..config() }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).expect("the file");
    assert!(text.is_empty() || text.ends_with('\n'), "a half line: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn sequences(path: &Path) -> Vec<u64> {
    lines(path).iter().map(|line| line["sequence"].as_u64().expect("a sequence")).collect()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

#[test]
fn line_has_the_documented_fields() {
    let mut line = Vec::new();
    append_line(&full(), &mut line);
    let line = String::from_utf8(line).expect("UTF-8");
    assert_eq!(line, GOLDEN);
    let shown = include_str!("../../../../docs/FINDINGS.md");
    let shown: serde_json::Value = shown
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .map(|example| serde_json::from_str(example).expect("the example of docs/FINDINGS.md"))
        .expect("docs/FINDINGS.md has an example");
    let golden: serde_json::Value = serde_json::from_str(GOLDEN).expect("golden");
    assert_eq!(shown, golden, "docs/FINDINGS.md shows another finding");
    for name in golden.as_object().expect("an object").keys() {
        assert!(
            include_str!("../../../../docs/FINDINGS.md").contains(&format!("`{name}`")),
            "undocumented: {name}"
        );
    }
}

#[test]
fn line_of_a_bare_finding_has_no_empty_fields() {
    let mut line = Vec::new();
    append_line(&Finding { time: UNIX_EPOCH, ..bare() }, &mut line);
    let expected = concat!(
        r#"{"sequence":0,"time":"1970-01-01T00:00:00.000000000Z","verdict":"unauthorized","severity":"high","#,
        r#""kind":"exec","flavour":"tracepoint","workload":{"id":"host"},"documents":[],"reason":"a test"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line).expect("UTF-8"), expected);
}

#[tokio::test]
async fn shutdown_writes_what_is_queued() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("findings.jsonl");
    let feed = feed(&with_file(&path));
    (0..1000).for_each(|_| feed.publish(full()));
    feed.shutdown(Duration::from_secs(10)).await;
    assert_eq!(sequences(&path), (1..=1000).collect::<Vec<_>>());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("metadata").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn file_that_ends_within_a_line_is_continued_on_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("findings.jsonl");
    fs::write(&path, r#"{"sequ"#).expect("written");
    let feed = feed(&with_file(&path));
    feed.publish(bare());
    feed.shutdown(Duration::from_secs(5)).await;
    let text = fs::read_to_string(&path).expect("the file");
    assert!(text.starts_with("{\"sequ\n{\"sequence\":1,"), "{text}");
}

#[tokio::test]
async fn rotation_goes_on_in_the_new_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, old) = (directory.path().join("findings.jsonl"), directory.path().join("findings.jsonl.1"));
    let feed = feed(&with_file(&path));
    feed.publish(bare());
    until("the first line", || sequences(&path) == [1]).await;
    fs::rename(&path, &old).expect("renamed");
    feed.reopen();
    until("the new file", || path.exists()).await;
    feed.publish(bare());
    feed.shutdown(Duration::from_secs(5)).await;
    assert_eq!((sequences(&old), sequences(&path)), (vec![1], vec![2]));
}

#[tokio::test]
async fn rotation_into_nothing_keeps_the_old_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let inner = directory.path().join("log");
    fs::create_dir(&inner).expect("made");
    let feed = feed(&with_file(&inner.join("findings.jsonl")));
    let moved = directory.path().join("moved");
    fs::rename(&inner, &moved).expect("renamed");
    feed.reopen();
    until("the failure", || feed.metrics.text().contains(r#"feed_errors_total{sink="json_lines"} 1"#)).await;
    feed.publish(bare());
    feed.shutdown(Duration::from_secs(5)).await;
    assert_eq!(sequences(&moved.join("findings.jsonl")), [1]);
}

#[tokio::test]
async fn device_that_is_always_full_costs_findings_and_no_time() {
    let feed = feed(&with_file(Path::new("/dev/full")));
    let mut client = feed.watch(Filter::default(), None).expect("subscribed");
    feed.publish(bare());
    // 1, and the finding that says that writing fails.
    until("both are lost", || feed.metrics.dropped_count(Sink::JsonLines) == 2).await;
    let items = drain(&mut client).await;
    assert_eq!(shape(&items), "S0 1 2");
    let Item::One(loss) = &items[2] else { panic!("expected a finding") };
    assert_eq!((loss.verdict, loss.kind), (Verdict::Loss, Kind::Lost));
    assert!(loss.reason.contains("No space left on device"), "{}", loss.reason);
    feed.publish(bare());
    until("the third is lost", || feed.metrics.dropped_count(Sink::JsonLines) == 3).await;
    assert_eq!(shape(&drain(&mut client).await), "3", "said once per streak");
    feed.shutdown(Duration::from_secs(5)).await;
}

/// A tmpfs, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "muster-test"]).arg(at).output();
        let mounted = mounted.expect("mount(8) is needed: apt-get install mount");
        assert!(
            mounted.status.success(),
            "a small tmpfs is needed, run as root (sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo test): {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that panics may still have the file open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn full_disk_loses_whole_lines_then_recovers_and_says_how_many() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::mount(directory.path());
    let path = directory.path().join("findings.jsonl");
    let ballast = directory.path().join("ballast");
    // 61,440 bytes of 65,536: one page is left, in which a few lines fit and the next only in part.
    fs::write(&ballast, vec![0; 15 * 4096]).expect("ballast");
    let feed = feed(&config::Feed { client_queue: 1000, ..with_file(&path) });
    let losses = Filter { verdicts: vec![Verdict::Loss], ..Filter::default() };
    let mut losses = feed.watch(losses, None).expect("subscribed");
    let dropped = || feed.metrics.dropped_count(Sink::JsonLines);
    let mut published = 0;
    while dropped() < 10 {
        feed.publish(full());
        published += 1;
        assert!(published < 100, "the disk should be full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(lines(&path).len() > 2, "before the disk was full, and with no half line");

    fs::remove_file(&ballast).expect("removed");
    feed.publish(full());
    let mut reported = 0;
    while reported < dropped() {
        let item =
            tokio::time::timeout(Duration::from_secs(5), losses.next()).await.expect("a report in time");
        let Some(Item::One(loss)) = item else { continue };
        // "7 findings could not be written to …"; the finding before it has no number.
        reported += loss.reason.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    }
    assert_eq!(reported, dropped(), "each lost finding is reported once");
    feed.shutdown(Duration::from_secs(5)).await;
    let written = lines(&path);
    assert_eq!(written.last().expect("lines")["verdict"], "loss");
    let written = u64::try_from(written.len()).expect("small");
    assert_eq!(written + dropped(), feed.sequence(), "written and counted lost are what was made");
    drop(disk);
}

#[tokio::test]
async fn findings_that_do_not_fit_in_the_queue_are_counted_and_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("findings.jsonl");
    let metrics = Metrics::new();
    let hub = Arc::new(super::super::hub::Hub::new(&config(), Arc::clone(&metrics)));
    let sink =
        super::super::json_lines::JsonLines::with_queue(&path, 2, Arc::downgrade(&hub), Arc::clone(&metrics));
    hub.set_json_lines(sink.expect("a sink"));
    (0..20_000).for_each(|_| hub.publish(full()));
    let written = || lines_so_far(&path);
    until("the report", || written().iter().any(|line| line.contains(r#""verdict":"loss""#))).await;
    let sink = hub.close().expect("the sink");
    assert!(sink.finish(Duration::from_secs(5)));
    let got = u64::try_from(lines(&path).len()).expect("small");
    assert!(metrics.dropped_count(Sink::JsonLines) > 0, "a queue of two cannot have kept up");
    assert_eq!(got + metrics.dropped_count(Sink::JsonLines), hub.sequence());
}

/// Whole lines of a file that is being written.
fn lines_so_far(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("the file");
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
}

#[test]
fn file_that_cannot_be_opened_is_refused_with_what_to_do() {
    let error =
        Feed::new(&with_file(Path::new("/nowhere/findings.jsonl")), Metrics::new()).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("/nowhere/findings.jsonl") && text.contains("set feed.json_lines"), "{text}");
}
