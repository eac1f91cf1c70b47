//! What a scenario must give, and how it is compared with what came: nothing missing, nothing else.

use std::fmt;

use muster_proto::v1;

/// One finding that must come exactly once.
#[derive(Clone, Debug)]
pub struct Expect {
    kind: v1::Kind,
    verdict: v1::Verdict,
    path: String,
    severity: Option<v1::Severity>,
    sha256: Option<String>,
    origins: &'static [&'static str],
    workload: String,
    image: Option<String>,
    operation: Option<&'static str>,
    connect: Option<(&'static str, String)>,
    parent: Option<String>,
    blind_spot: Option<&'static str>,
    says: Option<String>,
}

impl Expect {
    /// A finding of this kind and verdict for the file at `path` of the host.
    pub fn new(kind: v1::Kind, verdict: v1::Verdict, path: impl Into<String>) -> Self {
        Self {
            kind,
            verdict,
            path: path.into(),
            severity: None,
            sha256: None,
            origins: &[],
            workload: "host".to_owned(),
            image: None,
            operation: None,
            connect: None,
            parent: None,
            blind_spot: None,
            says: None,
        }
    }

    /// The path by which it is told.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Its severity.
    #[must_use]
    pub fn severity(self, severity: v1::Severity) -> Self {
        Self { severity: Some(severity), ..self }
    }

    /// The SHA-256 of the file, 64 hexadecimal digits.
    #[must_use]
    pub fn sha256(self, hex: impl Into<String>) -> Self {
        Self { sha256: Some(hex.into()), ..self }
    }

    /// Who computed the SHA-256: one of these.
    #[must_use]
    pub fn digest_from(self, origins: &'static [&'static str]) -> Self {
        Self { origins, ..self }
    }

    /// The workload's id, when it is not the host.
    #[must_use]
    pub fn workload(self, id: impl Into<String>) -> Self {
        Self { workload: id.into(), ..self }
    }

    /// The digest of the workload's image, `sha256:…`.
    #[must_use]
    pub fn image(self, digest: impl Into<String>) -> Self {
        Self { image: Some(digest.into()), ..self }
    }

    /// The operation of a file finding.
    #[must_use]
    pub fn operation(self, name: &'static str) -> Self {
        Self { operation: Some(name), ..self }
    }

    /// Protocol and destination of a connect, `ADDRESS:PORT`.
    #[must_use]
    pub fn connect(self, protocol: &'static str, to: impl Into<String>) -> Self {
        Self { connect: Some((protocol, to.into())), ..self }
    }

    /// Command name of the parent process.
    #[must_use]
    pub fn parent(self, comm: impl Into<String>) -> Self {
        Self { parent: Some(comm.into()), ..self }
    }

    /// Words of its reason.
    #[must_use]
    pub fn says(self, words: impl Into<String>) -> Self {
        Self { says: Some(words.into()), ..self }
    }

    /// The tracepoint flavour cannot see it, because of the blind spot with these words, which `muster probe` must list.
    #[must_use]
    pub fn blind(self, words: &'static str) -> Self {
        Self { blind_spot: Some(words), ..self }
    }

    /// Words of the tracepoint flavour's blind spot, if it cannot see this.
    pub fn blind_spot(&self) -> Option<&'static str> {
        self.blind_spot
    }

    fn matches(&self, f: &v1::Finding) -> bool {
        let connect = f.connect.as_ref().map(|c| (c.protocol.as_str(), destination(c)));
        f.kind() == self.kind
            && f.verdict() == self.verdict
            && f.path == self.path
            && f.workload.as_ref().is_some_and(|w| w.id == self.workload)
            && self.image.as_ref().is_none_or(|i| f.workload.as_ref().is_some_and(|w| w.image_digest == *i))
            && self.says.as_ref().is_none_or(|words| f.reason.contains(words))
            && self.severity.is_none_or(|s| f.severity() == s)
            && self.sha256.as_ref().is_none_or(|s| f.sha256 == *s)
            && (self.origins.is_empty() || self.origins.contains(&f.digest_origin.as_str()))
            && self.operation.is_none_or(|o| f.operation == o)
            && self
                .connect
                .as_ref()
                .is_none_or(|(p, to)| connect.as_ref().is_some_and(|(q, at)| p == q && to == at))
            && self.parent.as_ref().is_none_or(|p| f.ancestors.first().is_some_and(|a| a.comm == *p))
    }
}

fn destination(c: &v1::Connect) -> String {
    if c.address.contains(':') {
        format!("[{}]:{}", c.address, c.port)
    } else {
        format!("{}:{}", c.address, c.port)
    }
}

/// One line for a person.
pub fn describe(f: &v1::Finding) -> String {
    format!(
        "{} {} {} path={} op={} workload={} sha256={} by={} parent={} connect={:?}: {}",
        f.severity().as_str_name(),
        f.kind().as_str_name(),
        f.verdict().as_str_name(),
        f.path,
        f.operation,
        f.workload.as_ref().map_or("", |w| &w.id),
        f.sha256.get(..12).unwrap_or(""),
        f.digest_origin,
        f.ancestors.first().map_or("", |a| &a.comm),
        f.connect.as_ref().map(destination),
        f.reason,
    )
}

/// What differs between what must come and what came.
#[derive(Debug, Default)]
pub struct Difference {
    /// Expectations without a finding.
    pub missing: Vec<Expect>,
    /// Findings without an expectation, described.
    pub unexpected: Vec<String>,
}

impl Difference {
    /// Compares as multisets.
    pub fn of(expected: &[Expect], came: &[v1::Finding]) -> Self {
        let mut left: Vec<&v1::Finding> = came.iter().collect();
        let mut missing = Vec::new();
        for e in expected {
            match left.iter().position(|f| e.matches(f)) {
                Some(at) => drop(left.remove(at)),
                None => missing.push(e.clone()),
            }
        }
        Self { missing, unexpected: left.into_iter().map(describe).collect() }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for m in &self.missing {
            write!(f, "\n    missing:    {m:?}")?;
        }
        for u in &self.unexpected {
            write!(f, "\n    unexpected: {u}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(path: &str) -> v1::Finding {
        v1::Finding {
            kind: v1::Kind::Exec.into(),
            verdict: v1::Verdict::Relocated.into(),
            path: path.to_owned(),
            workload: Some(v1::Workload { id: "host".to_owned(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn each_expectation_takes_one_finding() {
        let e = Expect::new(v1::Kind::Exec, v1::Verdict::Relocated, "/a");
        assert!(Difference::of(std::slice::from_ref(&e), &[finding("/a")]).is_empty());
        assert_eq!(Difference::of(std::slice::from_ref(&e), &[]).missing.len(), 1);
        assert_eq!(Difference::of(&[e], &[finding("/a"), finding("/a")]).unexpected.len(), 1);
    }
}
