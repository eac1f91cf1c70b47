//! The Prometheus text format 0.0.4, from OpenMetrics text.

/// The same samples: a counter's family is named as its samples are, which OpenMetrics does not do, and what only OpenMetrics has is left
/// out.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    // `HELP` comes before `TYPE`, which says how the family is named.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let mut line_of = |keyword: &str, name: &str, suffix: &str, rest: &str| {
            for part in ["# ", keyword, " ", name, suffix, " ", rest, "\n"] {
                out.push_str(part);
            }
        };
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                line_of("HELP", name, suffix, text);
            }
            line_of("TYPE", name, suffix, kind);
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
