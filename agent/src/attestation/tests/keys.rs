//! RSA and P-384, signed by openssl.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

#[test]
fn signatures_by_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let out = Command::new("openssl")
            .args(args)
            .current_dir(directory.path())
            .output()
            .expect("openssl is needed: apt-get install openssl");
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let statement = statement_with(SBOM);
    let signed = [envelope::pae_header(statement.len()).as_slice(), statement.as_bytes()].concat();
    std::fs::write(directory.path().join("message"), signed).unwrap();
    let rsa =
        |bits: &'static str| ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", bits, "-out", "key"];
    let ec = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "key"];
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    for (name, generate, hash, options, accepted) in [
        ("RSA 2048", &rsa("rsa_keygen_bits:2048")[..], "-sha256", &[][..], true),
        ("RSA 3072, PSS", &rsa("rsa_keygen_bits:3072"), "-sha256", &pss, true),
        ("RSA with SHA-1", &rsa("rsa_keygen_bits:2048"), "-sha1", &[], false),
        ("P-384", &ec, "-sha384", &[], true),
        ("P-384 as cosign 2 hashes", &ec, "-sha256", &[], true),
        ("P-384 with SHA-512", &ec, "-sha512", &[], false),
    ] {
        openssl(generate);
        let public = openssl(&["pkey", "-in", "key", "-pubout"]);
        let mut keys = Keys::default();
        keys.add_pem(&public).expect(name);
        let spki = pem_rfc7468::decode_vec(&public).unwrap().1;
        assert_eq!(keys.ids().collect::<Vec<_>>(), [KeyId(sha256(&spki))], "{name}");
        let arguments =
            [&["dgst", hash, "-sign", "key"], options, &["-out", "signature", "message"]].concat();
        openssl(&arguments);
        let signature = std::fs::read(directory.path().join("signature")).unwrap();
        let envelope = |signature: &[u8]| {
            serde_json::json!({
                "payloadType": envelope::PAYLOAD_TYPE, "payload": STANDARD.encode(&statement),
                "signatures": [{"sig": STANDARD.encode(signature)}],
            })
            .to_string()
        };
        let result = verify(envelope(&signature).as_bytes(), &policy(&keys, 1), &Limits::default());
        assert_eq!(result.is_ok(), accepted, "{name}: {result:?}");
        for at in 0..signature.len() {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            let text = refusal(envelope(&changed).as_bytes(), &keys);
            assert!(text.contains("signed by 0"), "{name}, byte {at}: {text}");
            // A policy is made anew for each; some bytes of each signature do.
            if at > 16 {
                break;
            }
        }
        assert!(refusal(envelope(&[]).as_bytes(), &keys).contains("signed by 0"), "{name}");
    }
}
