//! What a document of many tiny elements costs: not many times its size. One test, for the peak is that of a whole process.

use std::fs;
use std::process::Command;

use muster::sbom::{Limits, parse};

/// About the size of a document.
const SIZE: usize = 4 << 20;
/// For what does not grow with it.
const BASE: usize = 2 << 20;
/// Which case a process measures.
const CASE: &str = "MUSTER_TEST_CASE";

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<usize>().expect("a number") << 10
}

#[test]
fn many_tiny_elements() {
    // Where the list stands, one of its elements, and how many times the document's size it may take.
    let cases = [
        (
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"a","properties":[LIST]}]}"#,
            "{}",
            1,
        ),
        (
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"data","name":"a","evidence":{"occurrences":[LIST]}}]}"#,
            r#"{"location":"/"}"#,
            5,
        ),
        (
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"a","components":[LIST]}]}"#,
            r#"{"type":"data","name":""}"#,
            1,
        ),
        (
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"data","name":"a","properties":[LIST]}}}"#,
            "{}",
            1,
        ),
        (
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","compositions":[LIST]}"#,
            r#"{"aggregate":"","assemblies":["",""]}"#,
            1,
        ),
        (
            r#"{"bomFormat":"CycloneDX","specVersion":"1.6","compositions":[{"aggregate":"","assemblies":[LIST]}]}"#,
            r#""""#,
            1,
        ),
        (
            r#"{"spdxVersion":"SPDX-2.3","packages":[{"SPDXID":"a","name":"a","hasFiles":[LIST]}]}"#,
            r#""""#,
            1,
        ),
        (
            r#"{"spdxVersion":"SPDX-2.3","packages":[{"SPDXID":"a","name":"a","hasFiles":[LIST]}]}"#,
            r#""SPDXRef-""#,
            5,
        ),
        (
            r#"{"spdxVersion":"SPDX-2.3","packages":[{"SPDXID":"a","name":"a","attributionTexts":[LIST]}]}"#,
            r#""""#,
            1,
        ),
        (
            r#"{"spdxVersion":"SPDX-2.3","packages":[{"SPDXID":"a","name":"a","annotations":[LIST]}]}"#,
            "{}",
            1,
        ),
        (
            r#"{"spdxVersion":"SPDX-2.3","packages":[{"SPDXID":"a","name":"a","externalRefs":[LIST]}]}"#,
            r#"{"referenceType":"","referenceLocator":""}"#,
            1,
        ),
        (r#"{"spdxVersion":"SPDX-2.3","creationInfo":{"creators":[LIST]}}"#, r#""""#, 1),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"Relationship","relationshipType":"contains","from":"a","to":[LIST]}]}"#,
            "{}",
            1,
        ),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"Relationship","relationshipType":"contains","from":"a","to":[LIST]}]}"#,
            r#""""#,
            1,
        ),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"Relationship","relationshipType":"contains","from":"a","to":[LIST]}]}"#,
            r#""s:1""#,
            5,
        ),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"SpdxDocument","spdxId":"a","element":[LIST]}]}"#,
            r#"{"type":"x"}"#,
            1,
        ),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[LIST]}"#,
            r#"{"type":"software_Package","externalIdentifier":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"]}"#,
            5,
        ),
        (
            r#"{"@context":["https://spdx.org/rdf/3.0.1/spdx-context.jsonld",{"abcd":"urn:x"}],"@graph":[{"type":"Relationship","relationshipType":"contains","from":"a","to":[LIST]}]}"#,
            r#""urn:x1""#,
            8,
        ),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"software_Sbom","spdxId":"a","rootElement":[LIST]}]}"#,
            r#""a""#,
            1,
        ),
        (
            r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{"type":"software_Package","spdxId":"a","externalIdentifier":[LIST]}]}"#,
            "{}",
            1,
        ),
        (
            r#"{"schema":{"version":"16.0.0"},"artifacts":[{"id":"a","name":"a","metadata":{"files":[LIST]}}]}"#,
            "{}",
            1,
        ),
        (
            r#"{"schema":{"version":"16.0.0"},"artifacts":[{"id":"a","name":"a","metadata":{"files":[LIST]}}]}"#,
            r#"{"path":"a","digest":{"algorithm":"md5","value":"a"}}"#,
            5,
        ),
        (
            r#"{"schema":{"version":"16.0.0"},"artifacts":[{"id":"a","name":"a","metadata":{"files":[{"path":"a","digest":[LIST]}]}}]}"#,
            "{}",
            1,
        ),
        (
            r#"{"schema":{"version":"16.0.0"},"artifacts":[],"source":{"metadata":{"imageID":"a","layers":[LIST]}}}"#,
            r#"{"digest":""}"#,
            5,
        ),
    ];
    match std::env::var(CASE).map(|case| case.parse::<usize>()) {
        Ok(case) => {
            let (around, element, times) = cases[case.expect("a number")];
            measure(around, element, times);
        }
        // Each in a process of its own: what one has freed would hide what the next one takes.
        Err(_) => {
            for (case, (around, element, _)) in cases.iter().enumerate() {
                let output = Command::new(std::env::current_exe().expect("this program"))
                    .args(["--exact", "many_tiny_elements", "--nocapture"])
                    .env(CASE, case.to_string())
                    .output()
                    .expect("it runs");
                let [stdout, stderr] =
                    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
                assert!(output.status.success(), "{around} of {element}: {stdout}{stderr}");
                print!(
                    "{}",
                    stdout.lines().filter(|line| line.contains(" times")).collect::<String>() + "\n"
                );
            }
        }
    }
}

fn measure(around: &str, element: &str, times: usize) {
    let list = format!("{element},").repeat(SIZE / (element.len() + 1));
    let (start, end) = around.split_once("LIST").expect("a place for it");
    let document = [start, list.trim_end_matches(','), end].concat();
    let before = status("VmRSS");
    // The peak begins anew (proc(5), clear_refs).
    fs::write("/proc/self/clear_refs", "5").expect("procfs");
    let parsed = parse(document.as_bytes(), &Limits::default()).map(|index| index.len());
    let took = status("VmHWM").saturating_sub(before);
    println!("{} % of its size, at most {times} times: {around} of {element}: {parsed:?}", took * 100 / SIZE);
    assert!(took <= times * SIZE + BASE, "{took} bytes for {SIZE}");
    if let Err(error) = parsed {
        let error = error.to_string();
        assert!(error.contains("more than") && error.contains("line 1"), "{error}");
    }
    // Freed before, its memory would be taken for what the document needs.
    drop(list);
}
