//! Provenance and VEX: what real builders write, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::attestation::vex::{Product, VexStatus};

fn provenance(predicate: &Value) -> Result<Provenance, String> {
    Provenance::parse(predicate.to_string().as_bytes(), &Limits::default()).map_err(|error| error.to_string())
}

#[test]
fn provenance_of_real_builders() {
    let github = serde_json::from_slice::<Value>(&data(
        "sigstore-conformance/happy-path-intoto-in-dsse-v3/bundle.sigstore.json",
    ))
    .unwrap();
    let policy = policy(&keys(&[&key(Algorithm::P256)]), 1);
    let bundle = github.to_string();
    assert_eq!(
        verify(bundle.as_bytes(), &policy, &Limits::default()).unwrap_err(),
        AttestationError::NoIdentities
    );
    let payload = Envelope::parse(github["dsseEnvelope"].to_string().as_bytes(), &Limits::default())
        .unwrap()
        .payload()
        .unwrap();
    let statement = Statement::parse(payload.bytes().to_vec(), 0, &Limits::default()).unwrap();
    assert_eq!(statement.predicate_type, PredicateType::SlsaProvenance);
    assert_eq!(statement.predicate_uri, "https://slsa.dev/provenance/v1");
    let found = Provenance::parse(statement.predicate(), &Limits::default()).unwrap();
    assert!(found.builder.as_ref().is_some_and(|id| id.starts_with("https://github.com/")), "{found:?}");
    assert_eq!(found.source.as_deref(), Some("https://github.com/loosebazooka/aa-test"));
    assert_eq!(found.commit.as_ref().map(String::len), Some(40), "{found:?}");

    let (commit, repository) = ("ab".repeat(20), "https://github.com/acme/web");
    let expected = |source: Option<&str>, commit: Option<&String>| Provenance {
        builder: Some("https://builder".into()),
        source: source.map(str::to_owned),
        commit: commit.cloned(),
    };
    let v02 = |more: Value| {
        let mut predicate = more;
        predicate["builder"] = json!({"id": "https://builder"});
        predicate
    };
    let v1 = |definition: Value| json!({"buildDefinition": definition, "runDetails": {"builder": {"id": "https://builder"}}});
    let git =
        json!({"uri": "git+https://github.com/acme/web.git@refs/heads/main", "digest": {"sha1": commit}});
    let image = json!({"uri": "pkg:docker/debian@12", "digest": {"sha256": "00"}});
    for (name, predicate, source, commit) in [
        (
            "v0.2",
            v02(json!({"invocation": {"configSource": git}, "materials": [image]})),
            Some(repository),
            Some(&commit),
        ),
        ("v0.2 by materials", v02(json!({"materials": [image, git]})), Some(repository), Some(&commit)),
        (
            "v0.2 of BuildKit, local",
            v02(json!({"invocation": {"configSource": {}}, "materials": []})),
            None,
            None,
        ),
        (
            "v0.2 of BuildKit, local, over a base image",
            v02(json!({"invocation": {"configSource": {"entryPoint": "Dockerfile"}}, "materials": [image]})),
            None,
            None,
        ),
        (
            "v1 of BuildKit, local, over a base image",
            v1(
                json!({"externalParameters": {"configSource": {"path": "Dockerfile"}}, "resolvedDependencies": [image]}),
            ),
            None,
            None,
        ),
        (
            "a repository that does not look like one, over a base image",
            v02(
                json!({"invocation": {"configSource": {"uri": "https://git.example/acme/web"}}, "materials": [image]}),
            ),
            Some("https://git.example/acme/web"),
            None,
        ),
        (
            "v1 of BuildKit",
            v1(json!({"externalParameters": {"configSource": {
                "uri": "https://github.com/acme/web.git#refs/heads/main", "digest": {"sha1": commit}}}})),
            // A fragment is the reference there.
            Some(repository),
            Some(&commit),
        ),
        (
            "v1 of GitHub",
            v1(json!({
                "externalParameters": {"workflow": {"repository": repository, "ref": "refs/heads/main", "path": "x"}},
                "resolvedDependencies": [{"uri": "git+https://github.com/acme/web@refs/heads/main", "digest": {"gitCommit": commit}}],
            })),
            Some(repository),
            Some(&commit),
        ),
        (
            "v1, parameters of the builder's own",
            v1(
                json!({"externalParameters": {"workflow": 7, "configSource": [1]}, "resolvedDependencies": [7, git]}),
            ),
            Some(repository),
            Some(&commit),
        ),
        (
            "v1, another repository's commit",
            v1(json!({
                "externalParameters": {"workflow": {"repository": repository}},
                "resolvedDependencies": [{"uri": "git+https://github.com/acme/lib", "digest": {"gitCommit": commit}}],
            })),
            Some(repository),
            None,
        ),
        (
            "a user at the host",
            v02(json!({"materials": [{"uri": "git+ssh://git@host/acme/web.git@v1"}]})),
            Some("ssh://git@host/acme/web"),
            None,
        ),
    ] {
        assert_eq!(provenance(&predicate).expect(name), expected(source, commit), "{name}");
    }
    // BuildKit that was not told who it is.
    let nobody = json!({"builder": {"id": ""}, "materials": [image]});
    let nothing = Provenance { builder: None, source: None, commit: None };
    assert_eq!(provenance(&nobody).as_ref(), Ok(&nothing));
    for (bad, reason) in [
        (json!({}), "expected builder (v0.2)"),
        (json!([]), "not SLSA provenance"),
        (json!({"builder": {}}), "missing field `id`"),
        (json!({"builder": {"id": "x".repeat(5000)}}), "more than 4096 bytes"),
        (json!({"builder": {"id": "x"}, "runDetails": {"builder": {"id": "y"}}}), "expected builder (v0.2)"),
        (json!({"runDetails": {"builder": {"id": "y"}}}), "expected builder (v0.2)"),
    ] {
        let text = provenance(&bad).unwrap_err();
        assert!(text.starts_with("predicate, byte 0: ") && text.contains(reason), "{bad}: {text}");
    }
    let twice = b"{\"builder\":{\"id\":\"a\",\"id\":\"b\"}}";
    let text = Provenance::parse(twice, &Limits::default()).unwrap_err().to_string();
    assert!(text.contains("duplicate key \"id\""), "{text}");
}

#[test]
fn vex_by_package() {
    let statement = |products: Value, status: &str| {
        json!({
            "vulnerability": {"@id": "https://nvd.nist.gov/x", "name": "CVE-2026-1"}, "products": products, "status": status,
            "justification": "component_not_present", "timestamp": "2026-01-01T00:00:00Z",
        })
    };
    let document = |statements: Value| {
        json!({
            "@context": "https://openvex.dev/ns/v0.2.0", "@id": "https://x", "author": "a", "timestamp": "2026-01-01T00:00:00Z",
            "version": 1, "statements": statements,
        })
    };
    let parse = |document: &Value| {
        Vex::parse(document.to_string().as_bytes(), &Limits::default()).map_err(|error| error.to_string())
    };
    let image = format!("pkg:oci/web@sha256%3A{}?repository_url=registry.example/web", "ab".repeat(32));
    let (bash, zlib) = ("pkg:deb/debian/bash@5", "pkg:deb/debian/zlib1g@1");
    let vex = parse(&document(json!([
        statement(json!([{"@id": image, "subcomponents": [{"@id": bash}, {"@id": "x", "identifiers": {"purl": zlib}}]}]), "not_affected"),
        statement(json!([{"@id": bash}, {"@id": "https://product"}]), "fixed"),
        statement(json!([]), "affected"),
    ])))
    .unwrap();
    let web = [Sha256([1; 32]), Sha256([0xab; 32])];
    let statuses = |purl: &str| vex.about(purl, &web).map(|said| said.status).collect::<Vec<_>>();
    assert_eq!(statuses(bash), [VexStatus::NotAffected, VexStatus::Fixed]);
    assert_eq!(statuses(zlib), [VexStatus::NotAffected]);
    assert!(statuses(&image).is_empty(), "its parts are what is said to be affected or not");
    assert_eq!(vex.without_purl, 1);
    assert_eq!(vex.packages().count(), 2);
    let said = vex.about(bash, &web).next().expect("said");
    assert_eq!(
        (&*said.vulnerability, said.justification.as_deref()),
        ("CVE-2026-1", Some("component_not_present"))
    );
    // Of another image only the statement about bash itself counts.
    let elsewhere: Vec<_> = vex.about(bash, &web[..1]).map(|said| (said.status, said.product)).collect();
    assert_eq!(elsewhere, [(VexStatus::Fixed, Product::Any)]);
    assert_eq!(vex.about(zlib, &web[..1]).count(), 0);
    let digest = "ab".repeat(32);
    for (product, expected) in [
        (json!({"@id": format!("pkg:oci/web@sha256:{digest}")}), Product::Image(web[1])),
        (json!({"@id": format!("pkg:docker/acme/web@sha256%3a{digest}?arch=amd64")}), Product::Image(web[1])),
        (
            json!({"@id": "x", "identifiers": {"purl": format!("pkg:oci/web@sha256%3A{digest}")}}),
            Product::Image(web[1]),
        ),
        (json!({"@id": "pkg:oci/web@sha256:11"}), Product::Unknown),
        (json!({"@id": format!("pkg:oci/web@sha512:{digest}{digest}")}), Product::Unknown),
        (json!({"@id": "pkg:oci/web"}), Product::Any),
        (json!({"@id": "pkg:oci/web?tag=v1@sha256:00"}), Product::Any),
        (json!({"@id": "pkg:docker/web@1.2"}), Product::Any),
        (json!({"@id": "pkg:deb/debian/bash@5:1"}), Product::Any),
        (json!({"@id": "https://product"}), Product::Any),
    ] {
        let mut with_parts = product.clone();
        with_parts["subcomponents"] = json!([{"@id": zlib}]);
        let vex = parse(&document(json!([statement(json!([with_parts]), "fixed")]))).unwrap();
        let found: Vec<_> = vex.packages().map(|(purl, said)| (purl, said[0].product)).collect();
        assert_eq!(found, [(zlib, expected)], "{product}");
        let counts = usize::from(expected != Product::Unknown);
        assert_eq!(vex.about(zlib, &web).count(), counts, "{product}");
    }
    let (good, with) = (document(json!([statement(json!([]), "fixed")])), |name: &str, value: Value| {
        let mut document = document(json!([]));
        document[name] = value;
        document
    });
    parse(&good).unwrap();
    parse(&with("@context", json!("https://openvex.dev/ns/v0.2"))).unwrap();
    for (bad, reason) in [
        (
            with("@context", json!("https://openvex.dev/ns/v0.1.0")),
            "@context is \"https://openvex.dev/ns/v0.1.0\"",
        ),
        (with("@context", json!("https://openvex.dev/ns/v0.20")), "@context is"),
        (with("@context", json!("https://openvex.dev/ns")), "@context is"),
        (with("statements", json!({})), "not OpenVEX"),
        (document(json!([statement(json!([]), "safe")])), "unknown variant `safe`"),
        (json!({}), "missing field `@context`"),
    ] {
        let text = parse(&bad).unwrap_err();
        assert!(text.starts_with("predicate, byte 0: ") && text.contains(reason), "{bad}: {text}");
    }
}
