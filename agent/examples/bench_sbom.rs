//! How fast an SBOM is read and how large its index is, against `serde_json::Value` and jq on the same documents: lines of JSON for
//! `cargo xtask bench`.
//!
//! Documents: those given as arguments; else real ones of the test data, the files of one of them (8,289) in every format, and one
//! made up in the shape of a Debian host with 130,000 files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster::sbom::{DigestPool, Format, ImageIndex, Limits, parse};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

#[path = "../src/sbom/tests/write.rs"]
mod write;

/// Files of the made-up host.
const FILES: u32 = 130_000;
/// Goals of the project.
const MEGABYTES_PER_SECOND: f64 = 300.0;
const BYTES_PER_FILE: f64 = 120.0;

fn main() -> anyhow::Result<()> {
    let mut documents = Vec::new();
    for file in std::env::args_os().skip(1) {
        documents.push((file.to_string_lossy().into_owned(), read(Path::new(&file))?));
    }
    if documents.is_empty() {
        for name in ["ubi9.spdx.json", "web.syft.json", "kubescape-nginx.syft.json"] {
            documents.push((name.to_owned(), read(&data(name))?));
        }
        let index = parse(&documents[0].1, &Limits::default())?;
        for (format, write) in write::WRITERS {
            documents.push((format!("files of ubi9 as {format}"), write(&content(&index)).into_bytes()));
        }
        documents.push((format!("host of {FILES} files"), host()));
        shared_digests()?;
    }
    let folder = tempfile::tempdir()?;
    documents.iter().try_for_each(|(name, bytes)| measure(name, bytes, folder.path()))
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sbom").join(name)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file)
        .with_context(|| format!("{}: the test data belongs beside the source tree", file.display()))
}

fn line(name: &str, value: f64, unit: &str) -> serde_json::Value {
    serde_json::json!({ "name": format!("SBOM {name}"), "value": value, "unit": unit })
}

fn measure(name: &str, bytes: &[u8], folder: &Path) -> anyhow::Result<()> {
    let limits = Limits::default();
    let index = parse(bytes, &limits).with_context(|| name.to_owned())?;
    let megabytes = f64::from(u32::try_from(bytes.len())?) / 1e6;
    let ours = median(|| parse(bytes, &limits).map(drop).map_err(Into::into), thread_time)?;
    let mut read = line(&format!("read, {name}"), megabytes / ours, "MB/s");
    read["at_least"] = MEGABYTES_PER_SECOND.into();
    println!("{read}");
    if !index.is_empty() {
        let files = f64::from(u32::try_from(index.len())?);
        let size = f64::from(u32::try_from(index.heap_bytes())?) / files;
        let mut size = line(&format!("index per file, {name}"), size, "bytes");
        size["at_most"] = BYTES_PER_FILE.into();
        println!("{size}");
    }
    if index.formats() == [Format::SpdxTagValue] {
        return Ok(());
    }
    let value = || serde_json::from_slice::<serde_json::Value>(bytes).map(drop).map_err(Into::into);
    let value = median(value, thread_time)?;
    println!("{}", line(&format!("read by serde_json::Value, {name}"), megabytes / value, "MB/s"));
    let file = folder.join("document.json");
    std::fs::write(&file, bytes)?;
    let jq = median(|| jq(&file), children_time)?;
    println!("{}", line(&format!("read by jq, {name}"), megabytes / jq, "MB/s"));
    Ok(())
}

/// Seconds of processor time, the median of several runs: long enough to be steady, short enough for the largest document.
fn median(
    mut run: impl FnMut() -> anyhow::Result<()>,
    time: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<f64> {
    let (mut seconds, begin) = (Vec::new(), Instant::now());
    while seconds.len() < 3 || begin.elapsed().as_secs() < 1 {
        let start = time()?;
        run()?;
        seconds.push((time()? - start).as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// Reads the document, and does nothing with it.
fn jq(file: &Path) -> anyhow::Result<()> {
    let status = Command::new("jq").arg("empty").arg(file).stdin(Stdio::null()).status();
    let status = status.context("jq is what the readers are compared with: apt-get install --yes jq")?;
    ensure!(status.success(), "jq empty {}: {status}", file.display());
    Ok(())
}

/// What a node that runs every image of the test data saves because their indexes share digests.
fn shared_digests() -> anyhow::Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(data("docker-hub"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.extend(["ubi9.spdx.json", "web.spdx.json"].map(data));
    files.sort();
    let mut indexes = Vec::new();
    for file in &files {
        indexes.push(parse(&read(file)?, &Limits::default()).with_context(|| file.display().to_string())?);
    }
    let bytes = |indexes: &[ImageIndex]| {
        let bytes = indexes.iter().map(ImageIndex::heap_bytes).sum::<usize>();
        Ok::<_, anyhow::Error>(f64::from(u32::try_from(bytes)?))
    };
    let (count, alone) = (indexes.len(), bytes(&indexes)?);
    let pool = DigestPool::default();
    let begin = thread_time()?;
    indexes.iter_mut().for_each(|index| index.share(&pool));
    let each = (thread_time()? - begin).as_secs_f64() * 1e3 / f64::from(u32::try_from(count)?);
    println!("{}", line(&format!("indexes of {count} images, each alone"), alone, "bytes"));
    println!("{}", line(&format!("indexes of {count} images that share digests"), bytes(&indexes)?, "bytes"));
    println!("{}", line("sharing of an index's digests", each, "ms"));
    Ok(())
}

/// What an index says, to be written in another format.
fn content(index: &ImageIndex) -> write::Content {
    let packages: Vec<_> = index
        .packages()
        .map(|p| write::Part {
            name: p.name.to_owned(),
            version: p.version.to_owned(),
            purl: p.purl.map(str::to_owned),
        })
        .collect();
    let label = |part: &write::Part| [&*part.name, &*part.version].join(" ");
    let owners: std::collections::HashMap<_, _> =
        packages.iter().enumerate().map(|(number, part)| (label(part), number)).collect();
    let files = index.entries().map(|entry| write::Listed {
        path: entry.path().to_string(),
        sha256: entry.sha256().map(|sha256| sha256.to_string()),
        sha1: Some("1".repeat(40)),
        owner: entry.package().and_then(|package| owners.get(package).copied()),
    });
    write::Content { files: files.collect(), packages, layer: "1".repeat(64), complete: true }
}

/// Processor time of this thread so far: what else the machine does is not measured.
fn thread_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Processor time of the children that have ended.
fn children_time() -> anyhow::Result<Duration> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = |time: nix::sys::time::TimeVal| {
        u64::try_from(nix::sys::time::TimeValLike::num_microseconds(&time)).context("a time before zero")
    };
    Ok(Duration::from_micros(microseconds(used.user_time())? + microseconds(used.system_time())?))
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
