"""Signs SBOMs as in-toto statements in DSSE envelopes, with a signer that is not ours (securesystemslib).

attest.py OUTPUT-DIRECTORY IMAGE-DIGEST PREDICATE-TYPE=SBOM...

Writes attestations/NAME.json for each SBOM, key.pub and image-digest.
"""

import json
import pathlib
import sys

from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner


def main(output, digest, documents):
    algorithm, _, hexadecimal = digest.partition(":")
    assert algorithm == "sha256" and len(hexadecimal) == 64, f"expected sha256:HEX, found {digest!r}"
    signer = CryptoSigner.generate_ecdsa()
    attestations = output / "attestations"
    attestations.mkdir(parents=True, exist_ok=True)
    for document in documents:
        predicate_type, _, file = document.rpartition("=")
        file = pathlib.Path(file)
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "image-under-test", "digest": {"sha256": hexadecimal}}],
            "predicateType": predicate_type,
            "predicate": json.loads(file.read_text()),
        }
        payload = json.dumps(statement, separators=(",", ":")).encode()
        envelope = Envelope(payload, "application/vnd.in-toto+json", {})
        envelope.sign(signer)
        (attestations / file.name).write_text(json.dumps(envelope.to_dict()))
    (output / "key.pub").write_text(signer.public_key.keyval["public"])
    (output / "image-digest").write_text(digest + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
