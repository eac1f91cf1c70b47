//! The exceptions of the configuration, for people and as JSON.

use muster_proto::v1;
use serde_json::{Value, json};

use super::text::{Table, printable, severity_name};

/// A row for each.
pub(super) fn table(exceptions: &[v1::Exception]) -> Table {
    let mut table = Table::new(&["EXCEPTION", "FINDINGS", "BECOME", "UNTIL", "OWNER", "REASON"]);
    for exception in exceptions {
        let until = match exception.expired {
            true => format!("{}, expired", exception.expires),
            false => exception.expires.clone(),
        };
        let become_what = match exception.severity() {
            v1::Severity::Unspecified => "not reported".to_owned(),
            _ => severity_name(exception.severity),
        };
        table.row(vec![
            printable(&exception.name),
            exception.hits.to_string(),
            become_what,
            printable(&until),
            printable(&exception.owner),
            printable(&exception.reason),
        ]);
    }
    table
}

/// A member for each field.
pub(super) fn json(exceptions: &[v1::Exception]) -> Value {
    let one = |exception: &v1::Exception| {
        json!({
            "name": exception.name,
            "owner": exception.owner,
            "reason": exception.reason,
            "expires": exception.expires,
            "expired": exception.expired,
            "report": exception.severity() != v1::Severity::Unspecified,
            "severity": severity_name(exception.severity),
            "hits": exception.hits,
        })
    };
    exceptions.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_one_says_so_and_a_silent_one_too() {
        let one = v1::Exception {
            name: "ci".into(),
            owner: "team".into(),
            reason: "builds".into(),
            expires: "2027-01-31".into(),
            hits: 7,
            ..v1::Exception::default()
        };
        let other = v1::Exception { expired: true, severity: v1::Severity::Low.into(), ..one.clone() };
        let text = table(&[one.clone(), other.clone()]).to_string();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
            .collect();
        assert_eq!(rows[1], ["ci", "7", "not reported", "2027-01-31", "team", "builds"]);
        assert_eq!(rows[2], ["ci", "7", "low", "2027-01-31, expired", "team", "builds"]);
        assert_eq!(json(&[one])[0]["report"], false);
        assert_eq!(json(&[other])[0]["severity"], "low");
    }
}
