//! How fast an SBOM is read and how large its index is: lines of JSON for `cargo xtask bench`.
//!
//! Documents: those given as arguments, else a real one of the test data and one made up in the shape of a Debian host with
//! 130,000 files.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster::sbom::{Limits, parse};
use nix::time::{ClockId, clock_gettime};

/// Files of the made-up host.
const FILES: u32 = 130_000;
/// Goals of the project.
const MEGABYTES_PER_SECOND: f64 = 300.0;
const BYTES_PER_FILE: f64 = 120.0;

fn main() -> anyhow::Result<()> {
    let mut documents = Vec::new();
    for file in std::env::args_os().skip(1) {
        let bytes =
            std::fs::read(&file).with_context(|| format!("reading {}", Path::new(&file).display()))?;
        documents.push((file.to_string_lossy().into_owned(), bytes));
    }
    if documents.is_empty() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sbom/ubi9.spdx.json");
        let bytes = std::fs::read(&file)
            .with_context(|| format!("{}: the test data belongs beside the source tree", file.display()))?;
        documents.push(("ubi9.spdx.json".to_owned(), bytes));
        documents.push((format!("host of {FILES} files"), host()));
    }
    documents.iter().try_for_each(|(name, bytes)| measure(name, bytes))
}

fn measure(name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let limits = Limits::default();
    let mut index = parse(bytes, &limits).with_context(|| name.to_owned())?;
    let (mut seconds, begin) = (Vec::new(), Instant::now());
    // Long enough to be steady, short enough for the largest document.
    while seconds.len() < 5 || begin.elapsed().as_secs() < 2 {
        let start = processor_time()?;
        index = parse(bytes, &limits)?;
        seconds.push((processor_time()? - start).as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let megabytes = f64::from(u32::try_from(bytes.len())?) / 1e6;
    let speed = megabytes / seconds[seconds.len() / 2];
    let size = f64::from(u32::try_from(index.heap_bytes())?) / f64::from(u32::try_from(index.len().max(1))?);
    let line = |what, value: f64, unit, goal, limit: f64| {
        let mut line =
            serde_json::json!({ "name": format!("SBOM {what}, {name}"), "value": value, "unit": unit });
        line[goal] = limit.into();
        println!("{line}");
    };
    line("read", speed, "MB/s", "at_least", MEGABYTES_PER_SECOND);
    line("index per file", size, "bytes", "at_most", BYTES_PER_FILE);
    Ok(())
}

/// Processor time of this thread so far: what else the machine does is not measured.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// SPDX as syft writes it, paths as long as a Debian host's (66 bytes on average).
fn host() -> Vec<u8> {
    let mut text = String::from(
        "{\"spdxVersion\":\"SPDX-2.3\",\"SPDXID\":\"SPDXRef-DOCUMENT\",\"packages\":[{\"SPDXID\":\"SPDXRef-Package\",\"name\":\"p\"}],\"files\":[",
    );
    let mut relationships = String::new();
    let mut state = 1_u64;
    for number in 0..FILES {
        let comma = if number == 0 { "" } else { "," };
        let mut digest = String::new();
        for _ in 0..4 {
            // xorshift64: digests must be spread as real ones are.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            write!(digest, "{state:016x}").expect("into memory");
        }
        let path = format!("usr/share/some-package-{}/sub-directory/file-of-it-{number}.txt", number / 24);
        write!(
            text,
            "{comma}{{\"fileName\":\"{path}\",\"SPDXID\":\"SPDXRef-File-{number}-{state:x}\",\"fileTypes\":[\"TEXT\"],\
             \"checksums\":[{{\"algorithm\":\"SHA1\",\"checksumValue\":\"{sha1}\"}},\
             {{\"algorithm\":\"SHA256\",\"checksumValue\":\"{digest}\"}}],\"licenseConcluded\":\"NOASSERTION\",\
             \"licenseInfoInFiles\":[\"NOASSERTION\"],\"copyrightText\":\"\",\"comment\":\"layerID: sha256:{layer}\"}}",
            sha1 = &digest[..40],
            layer = "1".repeat(64),
        )
        .expect("into memory");
        write!(
            relationships,
            "{comma}{{\"spdxElementId\":\"SPDXRef-Package\",\"relatedSpdxElement\":\"SPDXRef-File-{number}-{state:x}\",\
             \"relationshipType\":\"CONTAINS\"}}"
        )
        .expect("into memory");
    }
    write!(text, "],\"relationships\":[{relationships}]}}").expect("into memory");
    text.into_bytes()
}
