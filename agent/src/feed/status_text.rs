//! Status, images and explanations: a readable form, and JSON with the field names of `muster.v1`.

use std::fmt::Write as _;
use std::time::Duration;

use muster_proto::v1;
use serde_json::{Value, json};

use super::convert;
use super::exceptions_text;
use super::json::time_text;
use super::text::{
    Table, binding_name, coverage_name, flavour_name, kind_name, printable, short_digest, workload_name,
};

/// `muster status`.
pub fn status(status: &v1::Status) -> String {
    let mut out = String::new();
    let started = convert::time_from(status.started.as_ref());
    let up = started.as_ref().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "muster {} on Linux {}, flavour {}, up {}",
        printable(&status.version),
        printable(&status.kernel_release),
        flavour_name(status.flavour),
        duration(up)
    );
    let _ = writeln!(out, "{} findings, {} processes", status.sequence, status.processes);
    for blind in &status.blind_spots {
        let _ = writeln!(out, "cannot see: {}", printable(blind));
    }
    let mut rings = Table::new(&["RING", "BYTES"]);
    for ring in &status.rings {
        rings.row(vec![printable(&ring.name), ring.size_bytes.to_string()]);
    }
    let mut kinds = Table::new(&["KIND", "SUBMITTED", "LOST", "RECEIVED", "MALFORMED"]);
    for kind in &status.kinds {
        let counts = [kind.submitted, kind.lost, kind.received, kind.malformed];
        kinds.row([kind_name(kind.kind)].into_iter().chain(counts.map(|n| n.to_string())).collect());
    }
    let mut verdicts = Table::new(&["VERDICT", "COUNT"]);
    for (verdict, count) in sorted(status) {
        verdicts.row(vec![printable(verdict), count.to_string()]);
    }
    let mut workloads = Table::new(&["WORKLOAD", "NAME", "IMAGE", "EVENTS"]);
    for row in &status.workloads {
        let workload = row.workload.clone().unwrap_or_default();
        workloads.row(vec![
            printable(&workload.id),
            printable(&workload_name(&workload.id, &workload.name)),
            short_digest(&printable(&workload.image_digest)),
            row.events.to_string(),
        ]);
    }
    let _ = write!(out, "\n{rings}\n{kinds}\n{verdicts}\n{workloads}\n{}", images_table(&status.images));
    if !status.exceptions.is_empty() {
        let _ = write!(out, "\n{}", exceptions_text::table(&status.exceptions));
    }
    for refused in &status.refused_attestations {
        let _ =
            writeln!(out, "refused attestation {}: {}", printable(&refused.file), printable(&refused.reason));
    }
    out
}

fn sorted(status: &v1::Status) -> Vec<(&String, &u64)> {
    let mut verdicts: Vec<_> = status.verdicts.iter().collect();
    verdicts.sort_unstable_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    verdicts
}

fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Images in `muster status`: a row each.
fn images_table(images: &[v1::Image]) -> Table {
    let mut table =
        Table::new(&["IMAGE", "STATE", "BINDING", "COVERAGE", "FILES", "IN USE", "DOCUMENTS", "WHY"]);
    for image in images {
        table.row(vec![
            short_digest(&printable(&image.digest)),
            printable(&image.state),
            binding_name(image.binding),
            coverage_name(image.coverage),
            image.files.to_string(),
            image.files_in_use.to_string(),
            image.documents.len().to_string(),
            printable(&image.reason),
        ]);
    }
    table
}

/// `muster images`.
pub fn images(images: &[v1::Image]) -> String {
    if images.is_empty() {
        return "no image is known yet: no workload was seen whose image the configuration names, and no digest names this host \
                (`muster attest subject --host` prints those that could)\n"
            .to_owned();
    }
    images.iter().map(image).collect::<Vec<_>>().join("\n")
}

/// An image with everything that is known of it.
fn image(image: &v1::Image) -> String {
    let mut out = format!("image {}\n", printable(&image.digest));
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        for (at, part) in value.lines().enumerate() {
            let _ = writeln!(out, "  {:10} {}", if at == 0 { name } else { "" }, printable(part));
        }
    };
    for named in image.digests.iter().filter(|named| named.digest != image.digest) {
        line(&named.kind, &named.digest);
    }
    line("state", &image.state);
    line("", &image.reason);
    if !image.documents.is_empty() {
        line("binding", &binding_name(image.binding));
        line("coverage", &coverage_name(image.coverage));
        line(
            "",
            &format!(
                "{} files listed, {} with SHA-256, {} with weak digests only, {} owned by a package; {} packages; the list {} to \
                 be complete",
                image.files,
                image.files_with_sha256,
                image.files_with_weak_digest,
                image.files_owned,
                image.packages,
                if image.complete { "claims" } else { "does not claim" },
            ),
        );
        line("in use", &format!("{} files", image.files_in_use));
        line("index", &format!("{} KiB", image.index_bytes / 1024));
    }
    for document in &image.documents {
        line("document", &format!("sha256:{} ({})", document.sha256, document.file));
        let tool = if document.tool.is_empty() { "a tool that it does not name" } else { &document.tool };
        line("", &format!("{} by {tool}, bound by {}", document.format, binding_name(document.binding)));
        let signed =
            convert::time_from(document.signed.as_ref()).map(|time| format!(" at {}", time_text(time)));
        line("", &format!("signed by {}{}", document.keys.join(", "), signed.unwrap_or_default()));
    }
    for built in &image.provenance {
        line("built by", if built.builder.is_empty() { "not stated" } else { &built.builder });
        let source = [("of ", &built.source), (" at commit ", &built.commit)];
        line(
            "",
            &source
                .iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(a, b)| format!("{a}{b}"))
                .collect::<String>(),
        );
    }
    if image.vex_documents > 0 {
        line("vex", &format!("{} documents", image.vex_documents));
    }
    if let Ok(until) = convert::time_from(image.trusted_until.as_ref()) {
        line("trust root", &format!("good until {}", time_text(until)));
    }
    for aside in &image.not_counted {
        line("", &format!("{}: {}", aside.file, aside.reason));
    }
    line("advice", &image.advice);
    out
}

/// `muster explain`.
pub fn explanations(explanations: &[v1::Explanation]) -> String {
    let mut out = String::new();
    for explanation in explanations {
        let _ = writeln!(
            out,
            "image {} (coverage {}, binding {})",
            printable(&explanation.image_digest),
            coverage_name(explanation.coverage),
            binding_name(explanation.binding)
        );
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(out, "  {name:9} {}", printable(value));
            }
        };
        line("path", &explanation.path);
        line("sha256", &explanation.sha256);
        line("package", &explanation.package);
        line("documents", &explanation.documents.join(", "));
        line("", &explanation.text);
    }
    out
}

/// `muster status --json`.
pub fn status_json(status: &v1::Status) -> Value {
    let started = convert::time_from(status.started.as_ref()).map(time_text).ok();
    json!({
        "version": status.version,
        "started": started,
        "kernel_release": status.kernel_release,
        "flavour": flavour_name(status.flavour),
        "blind_spots": status.blind_spots,
        "rings": status.rings.iter().map(|r| json!({"name": r.name, "size_bytes": r.size_bytes})).collect::<Value>(),
        "kinds": status.kinds.iter().map(|k| json!({
            "kind": kind_name(k.kind),
            "submitted": k.submitted,
            "lost": k.lost,
            "received": k.received,
            "malformed": k.malformed,
        })).collect::<Value>(),
        "images": images_json(&status.images),
        "degraded": status.degraded,
        "refused_attestations": status.refused_attestations.iter().map(refused_json).collect::<Value>(),
        "workloads": status.workloads.iter().map(|w| json!({
            "workload": w.workload.as_ref().map(|w| json!({
                "id": w.id, "name": w.name, "pod_uid": w.pod_uid, "image_digest": w.image_digest,
            })),
            "events": w.events,
        })).collect::<Value>(),
        "sequence": status.sequence,
        "verdicts": status.verdicts,
        "exceptions": exceptions_text::json(&status.exceptions),
        "processes": status.processes,
    })
}

/// `muster images --json`.
pub fn images_json(images: &[v1::Image]) -> Value {
    images
        .iter()
        .map(|i| {
            json!({
                "digest": i.digest,
                "state": i.state,
                "reason": i.reason,
                "digests": i.digests.iter().map(|d| json!({"kind": d.kind, "digest": d.digest})).collect::<Value>(),
                "binding": binding_name(i.binding),
                "coverage": coverage_name(i.coverage),
                "files": i.files,
                "files_with_sha256": i.files_with_sha256,
                "files_with_weak_digest": i.files_with_weak_digest,
                "files_owned": i.files_owned,
                "complete": i.complete,
                "packages": i.packages,
                "documents": i.documents.iter().map(document_json).collect::<Value>(),
                "not_counted": i.not_counted.iter().map(refused_json).collect::<Value>(),
                "advice": i.advice,
                "provenance": i.provenance.iter().map(|p| json!({
                    "builder": p.builder, "source": p.source, "commit": p.commit,
                })).collect::<Value>(),
                "vex_documents": i.vex_documents,
                "trusted_until": convert::time_from(i.trusted_until.as_ref()).map(time_text).ok(),
                "index_bytes": i.index_bytes,
                "files_in_use": i.files_in_use,
            })
        })
        .collect()
}

fn document_json(d: &v1::Document) -> Value {
    json!({
        "sha256": d.sha256,
        "format": d.format,
        "file": d.file,
        "tool": d.tool,
        "keys": d.keys,
        "signed": convert::time_from(d.signed.as_ref()).map(time_text).ok(),
        "binding": binding_name(d.binding),
    })
}

fn refused_json(r: &v1::RefusedAttestation) -> Value {
    json!({"file": r.file, "reason": r.reason})
}

/// `muster explain --json`.
pub fn explanations_json(explanations: &[v1::Explanation]) -> Value {
    explanations
        .iter()
        .map(|e| {
            json!({
                "image_digest": e.image_digest,
                "path": e.path,
                "sha256": e.sha256,
                "package": e.package,
                "coverage": coverage_name(e.coverage),
                "binding": binding_name(e.binding),
                "documents": e.documents,
                "text": e.text,
            })
        })
        .collect()
}

/// `muster events --json`.
pub fn event_json(e: &v1::Event) -> Value {
    let file = |f: &v1::File| {
        json!({
            "path": f.path, "path_truncated": f.path_truncated, "deleted": f.deleted, "inode": f.inode,
            "device": f.device, "mode": f.mode, "size": f.size, "sha256": f.sha256, "place": f.place,
        })
    };
    let mut out = json!({
        "time": convert::time_from(e.time.as_ref()).map(time_text).ok(),
        "kind": kind_name(e.kind),
        "flavour": flavour_name(e.flavour),
    });
    let mut set = |name: &str, value: Value| {
        out[name] = value;
    };
    if let Some(p) = &e.process {
        set(
            "process",
            json!({
                "pid": p.pid, "start_ns": p.start_ns, "ppid": p.ppid, "uid": p.uid, "euid": p.euid, "comm": p.comm,
            }),
        );
        set("cgroup_id", e.cgroup_id.into());
        set("mnt_ns", e.mnt_ns.into());
        set("pid_ns", e.pid_ns.into());
    }
    if let Some(f) = &e.file {
        set("file", file(f));
    }
    if let Some(f) = &e.script {
        set("script", file(f));
    }
    if !e.operation.is_empty() {
        set("operation", e.operation.clone().into());
    }
    if !e.target.is_empty() {
        set("target", e.target.clone().into());
    }
    if let Some(c) = &e.connect {
        set(
            "connect",
            json!({
                "protocol": c.protocol, "address": c.address, "port": c.port, "source_port": c.source_port,
                "sendto": c.sendto,
            }),
        );
    }
    match e.kind() {
        v1::Kind::Lost => {
            set("lost_kind", kind_name(e.lost_kind).into());
            set("lost_count", e.lost_count.into());
        }
        v1::Kind::Exit => set("exit_status", e.exit_status.into()),
        _ => {}
    }
    out
}
