//! Patterns over cgroup paths and signers' identities: `*` stands for any characters but `/`, `**` for any.

/// The pattern covers the whole of `path`. Takes time proportional to the product of the lengths at worst.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), path.as_bytes());
    let (mut pi, mut ti) = (0, 0);
    // Where to go on when a literal does not fit: (pattern after the star, text up to where it reached). A `*` may
    // give up at a `/`; then the `**` before it is asked.
    let mut single: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        if p.get(pi) == Some(&b'*') {
            if p.get(pi + 1) == Some(&b'*') {
                pi += 2;
                double = Some((pi, ti));
                single = None;
            } else {
                pi += 1;
                single = Some((pi, ti));
            }
            continue;
        }
        if pi == p.len() && ti == t.len() {
            return true;
        }
        if pi < p.len() && ti < t.len() && p[pi] == t[ti] {
            pi += 1;
            ti += 1;
            continue;
        }
        match (single, double) {
            (Some((after, reached)), _) if reached < t.len() && t[reached] != b'/' => {
                single = Some((after, reached + 1));
                (pi, ti) = (after, reached + 1);
            }
            (_, Some((after, reached))) if reached < t.len() => {
                single = None;
                double = Some((after, reached + 1));
                (pi, ti) = (after, reached + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn table() {
        let rows = [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/bc", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a/b/c", true),
            ("**", "/", true),
            ("/**/nginx.service", "/system.slice/x/nginx.service", true),
            ("/**/nginx.service", "/system.slice/nginx.service/x", false),
            ("/**/n*.service", "/n/a/nb.service/no.service", true),
            ("/**/*.scope/c*", "/x.scope/y.scope/z/w.scope/cc", true),
            ("/*/*-b", "/a/b-b-b", true),
            ("/*/*-b", "/a/c/b-b", false),
            ("", "", true),
            ("", "/", false),
            ("*", "", true),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn hostile_patterns_end_quickly() {
        let pattern = "**a".repeat(50);
        assert!(!matches(&pattern, &format!("{}b", "a".repeat(4000))));
        assert!(!matches(&"*a".repeat(50), &"a".repeat(4000).replace("aaaaaaaaaa", "aaaaaaaaa/")));
    }
}
