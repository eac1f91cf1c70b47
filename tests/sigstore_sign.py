"""Signs with Sigstore's own Python client and a private Sigstore (sigstore_services.py): no network but loopback.

sigstore_sign.py OUTPUT-DIRECTORY IDENTITY ISSUER IMAGE-DIGEST SBOM ARTIFACT

Writes trusted_root.json, and for both versions of the transparency log attestation.rekorN.sigstore.json (the SBOM, SPDX, about the
image) and artifact.rekorN.sigstore.json (a signature over the artifact). The client verifies each, too.
"""

import json
import os
import pathlib
import sys

from sigstore.dsse import StatementBuilder, Subject
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
from sigstore.verify import Verifier
from sigstore.verify.policy import AllOf, Identity, OIDCIssuerV2

import sigstore_services


def main(output, identity, issuer, digest, sbom, artifact):
    # Not through a proxy that this machine may have.
    os.environ["NO_PROXY"] = "*"
    services = sigstore_services.Sigstore()
    trusted_root = services.trusted_root()
    (output / "trusted_root.json").write_text(json.dumps(trusted_root))
    statement = (
        StatementBuilder()
        .subjects([Subject(name="registry.example/web", digest={"sha256": digest.removeprefix("sha256:")})])
        .predicate_type("https://spdx.dev/Document/v2.3")
        .predicate(json.loads(sbom.read_bytes()))
        .build()
    )
    for version in (1, 2):
        config = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": trusted_root,
            "signingConfig": services.signing_config(version),
        }
        config = ClientTrustConfig.from_json(json.dumps(config))
        token = IdentityToken(services.token(identity, issuer))
        with SigningContext.from_trust_config(config).signer(token) as signer:
            attestation, signature = signer.sign_dsse(statement), signer.sign_artifact(artifact.read_bytes())
        verifier = Verifier(trusted_root=config.trusted_root)
        policy = AllOf([Identity(identity=identity, issuer=issuer), OIDCIssuerV2(issuer)])
        verifier.verify_dsse(attestation, policy)
        verifier.verify_artifact(artifact.read_bytes(), signature, policy)
        for name, bundle in (("attestation", attestation), ("artifact", signature)):
            (output / f"{name}.rekor{version}.sigstore.json").write_text(bundle.to_json())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:5], *map(pathlib.Path, sys.argv[5:]))
