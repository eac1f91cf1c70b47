//! Status, images and explanations: a readable form, and JSON with the field names of `muster.v1`.

use std::fmt::Write as _;

use muster_proto::v1;
use serde_json::{Value, json};

use super::convert;
use super::exceptions_text;
use super::json::time_text;
use super::text::{binding_name, coverage_name, flavour_name, kind_name, printable};
use crate::counted::counted;

pub use super::overview::status;

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
                "{} listed, {} with SHA-256, {} with weak digests only, {} owned by a package; {}; the list {} to be complete",
                counted(image.files, "file"),
                image.files_with_sha256,
                image.files_with_weak_digest,
                image.files_owned,
                counted(image.packages, "package"),
                if image.complete { "claims" } else { "does not claim" },
            ),
        );
        line("in use", &counted(image.files_in_use, "file"));
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
        line("vex", &counted(image.vex_documents, "document"));
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

/// A verified SBOM has what was asked for.
pub fn is_known(explanations: &[v1::Explanation]) -> bool {
    explanations.iter().any(|explanation| !explanation.path.is_empty())
}

/// `muster explain`, asked for this.
pub fn explanations(asked: &str, explanations: &[v1::Explanation]) -> String {
    let mut out = String::new();
    if !is_known(explanations) {
        let _ = writeln!(out, "{}: no verified SBOM has it", printable(asked));
    }
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
        "problems": status.problems,
        "version": status.version,
        "node": status.node,
        "run": status.run,
        "config": status.config,
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
            "judged": k.judged,
        })).collect::<Value>(),
        "queues": status.queues,
        "dropped": status.dropped,
        "lag_ns": status.lag_ns,
        "resident_bytes": status.resident_bytes,
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
        "last_finding": convert::time_from(status.last_finding.as_ref()).map(time_text).ok(),
        "severities": status.severities,
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
    // A field without a value is left out, as in findings.
    let file = |f: &v1::File| {
        let mut out = json!({ "path": f.path });
        let mut set = |name: &str, is: bool, value: Value| {
            if is {
                out[name] = value;
            }
        };
        set("path_truncated", f.path_truncated, true.into());
        set("deleted", f.deleted, true.into());
        // The new name's file of a rename is not looked at: it has no inode.
        let looked_at = f.inode != 0;
        set("inode", looked_at, f.inode.into());
        set("device", looked_at, f.device.into());
        set("mode", looked_at || f.mode != 0, f.mode.into());
        set("size", looked_at, f.size.into());
        set("sha256", !f.sha256.is_empty(), f.sha256.clone().into());
        set("place", looked_at && !f.place.is_empty(), f.place.clone().into());
        out
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
        let mut connect =
            json!({ "protocol": c.protocol, "address": c.address, "port": c.port, "sendto": c.sendto });
        if c.source_port != 0 {
            connect["source_port"] = c.source_port.into();
        }
        set("connect", connect);
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
