//! Exceptions of the configuration: what an operator has decided to hear less of, or nothing of. They change what is said, never what is
//! counted. Applied in one place, between the judge and the feed; the first that matches counts.
//!
//! A path or a program is a label, so a label without proof matches none: a path that is cut, outside its process's root or only the
//! caller's spelling, a program that is not attested. A user is one whose real and effective ids are both that: who has become root is
//! somebody else. A loss is never excepted, neither of records nor of an image's attestation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use muster_proto::v1;

use crate::config::Exception;
use crate::finding::{Finding, Severity, Verdict};
use crate::glob;
use crate::metrics::Metrics;

/// The exceptions in force.
#[derive(Debug)]
pub struct Exceptions {
    rules: RwLock<Vec<Rule>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Rule {
    exception: Exception,
    name: Arc<str>,
    hits: AtomicU64,
    /// It was said that it has expired.
    is_told: AtomicBool,
}

impl Exceptions {
    /// Those of a configuration, with nothing hit yet.
    pub fn new(exceptions: &[Exception], metrics: Arc<Metrics>) -> Self {
        let new = Self { rules: RwLock::new(Vec::new()), metrics };
        new.replace(exceptions);
        new
    }

    /// Takes those of another configuration. One that is the same keeps its count.
    pub fn replace(&self, exceptions: &[Exception]) {
        let now = SystemTime::now();
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *rules);
        for exception in exceptions {
            let same = before.iter().find(|rule| rule.exception == *exception);
            let rule = Rule {
                exception: exception.clone(),
                name: exception.name.as_str().into(),
                hits: AtomicU64::new(same.map_or(0, |rule| rule.hits.load(Ordering::Relaxed))),
                is_told: AtomicBool::new(same.is_some_and(|rule| rule.is_told.load(Ordering::Relaxed))),
            };
            rule.is_expired(now);
            rules.push(rule);
        }
        self.metrics.set_exceptions(exceptions.iter().map(|exception| exception.name.as_str()));
    }

    /// What is left to say of a finding.
    pub fn apply(&self, mut finding: Finding) -> Option<Finding> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        // Without a process it is about an image: that it has lost its attestation is high.
        let is_of_image = finding.process.is_none() && finding.severity >= Severity::High;
        if finding.verdict == Verdict::Loss || is_of_image {
            return Some(finding);
        }
        let fits = |rule: &&Rule| matches(&rule.exception, &finding) && !rule.is_expired(finding.time);
        let Some(rule) = rules.iter().find(fits) else { return Some(finding) };
        rule.hits.fetch_add(1, Ordering::Relaxed);
        self.metrics.exception_hit(&rule.name);
        let Exception { owner, reason, severity, report, .. } = &rule.exception;
        if !report {
            self.metrics.verdict(finding.verdict, finding.severity);
            return None;
        }
        if let Some(severity) = *severity {
            finding.basis.judged = Some(finding.severity);
            let was =
                format!("; by the exception {} ({owner}: {reason}) not {}", rule.name, finding.severity);
            finding.reason.push_str(&was);
            finding.severity = severity;
        }
        finding.exception = Some(Arc::clone(&rule.name));
        Some(finding)
    }

    /// Each with its count, in the order of the configuration.
    pub fn status(&self) -> Vec<v1::Exception> {
        let now = SystemTime::now();
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let status = |rule: &Rule| {
            let Exception { owner, reason, expires, severity, .. } = &rule.exception;
            v1::Exception {
                name: rule.name.to_string(),
                owner: owner.clone(),
                reason: reason.clone(),
                expires: expires.to_string(),
                expired: expires.is_past(now),
                severity: severity.map_or(v1::Severity::Unspecified, crate::feed::convert::severity).into(),
                hits: rule.hits.load(Ordering::Relaxed),
            }
        };
        rules.iter().map(status).collect()
    }
}

impl Rule {
    /// Its last day is over; said once.
    fn is_expired(&self, at: SystemTime) -> bool {
        let is_expired = self.exception.expires.is_past(at);
        if is_expired && !self.is_told.swap(true, Ordering::Relaxed) {
            let Exception { name, owner, expires, .. } = &self.exception;
            tracing::warn!(%name, %owner, %expires, "an exception has expired: what it excepted is reported again");
        }
        is_expired
    }
}

/// Everything that the exception names is as it says.
fn matches(exception: &Exception, finding: &Finding) -> bool {
    let Exception {
        name: _,
        owner: _,
        reason: _,
        expires: _,
        path,
        sha256,
        package,
        program,
        user,
        workload,
        verdict,
        severity: _,
        report: _,
    } = exception;
    let process = finding.process.as_ref();
    let basis = &finding.basis;
    verdict.is_none_or(|verdict| verdict == finding.verdict)
        && sha256.is_none_or(|sha256| finding.sha256 == Some(sha256))
        && user.is_none_or(|user| process.is_some_and(|p| (p.uid, p.euid) == (user, user)))
        && workload.as_ref().is_none_or(|pattern| {
            let workload = &finding.workload;
            [&workload.id, &workload.name].into_iter().any(|name| glob::matches(pattern, name))
        })
        && package.as_ref().is_none_or(|pattern| {
            // `NAME VERSION`
            let label = finding.package.as_deref().unwrap_or_default();
            let name = label.rsplit_once(' ').map_or(label, |(name, _)| name);
            !label.is_empty() && (glob::matches(pattern, label) || glob::matches(pattern, name))
        })
        && path.as_ref().is_none_or(|pattern| {
            basis.path_is_proven && !finding.path_truncated && covers(pattern, &finding.path)
        })
        && program.as_ref().is_none_or(|pattern| {
            basis.program_is_attested && process.is_some_and(|p| covers(pattern, &p.exe))
        })
}

fn covers(pattern: &str, path: &crate::event::FilePath) -> bool {
    path.as_bytes().first() == Some(&b'/') && glob::matches(pattern, &path.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::event::{Flavour, Kind};
    use crate::finding::{Basis, ProcessInfo, Sha256, WorkloadInfo};

    fn exceptions(fields: &str) -> Exceptions {
        let text = format!(
            "[[exception]]\nname = \"ci\"\nowner = \"team\"\nreason = \"builds\"\nexpires = \"2999-12-31\"\n{fields}\n"
        );
        let config = Config::parse(&text, Path::new("m.toml")).expect(fields);
        Exceptions::new(&config.exceptions, Metrics::new())
    }

    fn finding() -> Finding {
        let process = ProcessInfo {
            uid: 1000,
            euid: 1000,
            exe: Arc::new("/usr/bin/git".into()),
            ..ProcessInfo::default()
        };
        let workload =
            WorkloadInfo { id: "docker://0123".into(), name: "web".into(), ..WorkloadInfo::default() };
        Finding {
            verdict: Verdict::Unauthorized,
            severity: Severity::High,
            kind: Kind::File,
            path: "/opt/ci/bin/x".into(),
            sha256: Some(Sha256([1; 32])),
            package: Some("git 2.39".into()),
            process: Some(process),
            workload: workload.into(),
            basis: Basis { path_is_proven: true, program_is_attested: true, ..Basis::default() },
            ..Finding::loss(Flavour::Lsm, "found".into())
        }
    }

    type Change = fn(&mut Finding);

    #[test]
    fn everything_that_an_exception_names_must_fit() {
        let same: Change = |_| {};
        let ones = "01".repeat(32);
        let by_digest = format!("sha256 = \"{ones}\"");
        let table: &[(&str, Change, bool)] = &[
            (r#"path = "/opt/ci/**""#, same, true),
            (r#"path = "/opt/ci/*""#, same, false),
            (r#"path = "/opt/c""#, same, false),
            (r#"path = "/opt/ci/**""#, |f| f.path_truncated = true, false),
            (r#"path = "/opt/ci/**""#, |f| f.basis.path_is_proven = false, false),
            (r#"path = "/**/x""#, |f| f.path = "opt/x".into(), false),
            (&by_digest, same, true),
            (&by_digest, |f| f.sha256 = Some(Sha256([2; 32])), false),
            (&by_digest, |f| f.sha256 = None, false),
            (r#"package = "git""#, same, true),
            (r#"package = "git 2.*""#, same, true),
            (r#"package = "gi""#, same, false),
            (r#"package = "git*""#, |f| f.package = None, false),
            (r#"program = "/usr/bin/git""#, same, true),
            (r#"program = "/usr/bin/*""#, same, true),
            (r#"program = "/usr/bin/git""#, |f| f.basis.program_is_attested = false, false),
            (r#"program = "/usr/bin/git""#, |f| f.process = None, false),
            ("user = 1000", same, true),
            ("user = 0", same, false),
            // Who has become root is somebody else.
            ("user = 1000", |f| f.process = Some(ProcessInfo { uid: 1000, ..ProcessInfo::default() }), false),
            ("user = 0", |f| f.process = None, false),
            (r#"workload = "web""#, same, true),
            (r#"workload = "docker://*""#, same, true),
            (r#"workload = "host""#, same, false),
            ("verdict = \"unauthorized\"\nuser = 1000", same, true),
            ("verdict = \"modified\"\nuser = 1000", same, false),
            ("path = \"/opt/ci/**\"\nuser = 1001", same, false),
        ];
        for (fields, change, expected) in table {
            let mut finding = finding();
            change(&mut finding);
            let silenced = exceptions(&format!("{fields}\nreport = false"));
            assert_eq!(silenced.apply(finding.clone()).is_none(), *expected, "{fields}");
            assert_eq!(silenced.status()[0].hits, u64::from(*expected), "{fields}");
            // What is not said is counted.
            let counted = silenced.metrics.verdict_count(Verdict::Unauthorized);
            assert_eq!(counted, u64::from(*expected), "{fields}");
            let lowered = exceptions(&format!("{fields}\nseverity = \"low\"")).apply(finding).expect("said");
            let severity = if *expected { Severity::Low } else { Severity::High };
            assert_eq!((lowered.severity, lowered.exception.is_some()), (severity, *expected), "{fields}");
            assert_eq!(lowered.reason.contains("by the exception ci (team: builds) not high"), *expected);
            assert_eq!(lowered.basis.judged.is_some(), *expected, "{fields}");
        }
    }

    #[test]
    fn a_loss_is_never_excepted() {
        let all = exceptions("workload = \"host\"\nreport = false");
        assert!(all.apply(Finding::loss(Flavour::Lsm, "lost".into())).is_some());
        let host = Arc::new(WorkloadInfo { id: "host".into(), ..WorkloadInfo::default() });
        let of_host = Finding { workload: host, ..finding() };
        assert!(all.apply(of_host.clone()).is_none());
        let of_image =
            |severity| Finding { process: None, verdict: Verdict::NoSbom, severity, ..of_host.clone() };
        let lost = of_image(Severity::High);
        assert_eq!(all.apply(lost.clone()), Some(lost));
        assert_eq!(all.apply(of_image(Severity::Low)), None, "it never had one");
    }

    #[test]
    fn an_expired_one_excepts_nothing_and_is_told() {
        let exceptions = exceptions("user = 1000\nreport = false");
        let year_3000 = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(32_503_680_000);
        let last = year_3000 - std::time::Duration::from_secs(1);
        assert!(exceptions.apply(Finding { time: last, ..finding() }).is_none());
        assert!(exceptions.apply(Finding { time: year_3000, ..finding() }).is_some());
        assert!(exceptions.rules.read().expect("whole")[0].is_told.load(Ordering::Relaxed));
        assert_eq!(exceptions.status()[0].hits, 1);
    }

    #[test]
    fn a_reload_keeps_the_counts_of_what_stays() {
        let one = exceptions("user = 1000\nreport = false");
        assert!(one.apply(finding()).is_none());
        let same: Vec<_> = one.rules.read().expect("whole").iter().map(|r| r.exception.clone()).collect();
        one.replace(&same);
        assert_eq!(one.status()[0].hits, 1);
        let line = r#"muster_exception_hits_total{exception="ci"} 1"#;
        assert!(one.metrics.text().lines().any(|l| l == line), "{}", one.metrics.text());
        one.replace(&[]);
        assert_eq!(one.status(), []);
        assert!(!one.metrics.text().contains("exception=\"ci\""));
        assert!(one.apply(finding()).is_some());
    }
}
