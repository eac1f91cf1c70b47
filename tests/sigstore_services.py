"""The services of a private Sigstore, on loopback, with keys made at start: a certificate authority (Fulcio) with its certificate
log, transparency logs (Rekor v1 and v2), and a timestamp authority (RFC 3161, by openssl). They answer as the real ones do.
"""

import base64
import datetime
import hashlib
import http.server
import json
import pathlib
import secrets
import struct
import subprocess
import tempfile
import threading

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

# Fulcio's extensions for the issuer, the old (bare text) and the new (DER), and RFC 6962's list of SCTs.
OLD_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
# Lifetime of Fulcio's certificates.
LIFETIME = datetime.timedelta(minutes=10)
AUDIENCE = "sigstore"


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def b64(data):
    return base64.b64encode(data).decode()


def der(key):
    """SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate_der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def tagged(tag, content):
    """DER, of less than 64 KiB."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x81" + bytes([size]) if size < 0x100 else b"\x82" + struct.pack("!H", size)
    return bytes([tag]) + length + content


def period():
    """A validity of the trust root or the signing configuration."""
    return {"start": (now() - datetime.timedelta(hours=1)).isoformat().replace("+00:00", "Z")}


def sha256_of(data):
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def usage(**bits):
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    names += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


class Authority:
    """A root, and an authority for signers below it."""

    def __init__(self, name):
        self.name, self.key = f"{name} root", ec.generate_private_key(ec.SECP256R1())
        self.root_key = ec.generate_private_key(ec.SECP384R1())
        self.root = self.issue(self.name, self.root_key, authority=1)
        self.intermediate = self.issue(f"{name} intermediate", self.key, authority=0)

    def issue(self, name, key, authority=None, extended=None):
        """By the root; `authority` is how many more may be below it."""
        subject, issuer = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of)]) for of in (name, self.name)]
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - day)
            .not_valid_after(now() + 365 * day)
            .add_extension(x509.BasicConstraints(authority is not None, authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if authority is None:
            builder = builder.add_extension(usage(digital_signature=True), critical=True)
        else:
            builder = builder.add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        if extended is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([extended]), critical=True)
        return builder.sign(self.root_key, hashes.SHA256())


class Fulcio:
    """Gives a certificate for the identity of a token, after it was logged."""

    def __init__(self, token_secret):
        self.authority = Authority("fulcio.example")
        self.log_key = ec.generate_private_key(ec.SECP256R1())
        self.token_secret = token_secret

    def signing_cert(self, request, bearer):
        claims = jwt.decode(bearer, self.token_secret, algorithms=["HS256"], audience=AUDIENCE)
        csr = x509.load_pem_x509_csr(base64.b64decode(json.loads(request)["certificateSigningRequest"]))
        assert csr.is_signature_valid, "the signer does not have the key"
        signer = self.authority
        begin = now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(signer.intermediate.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + LIFETIME)
            .add_extension(usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(claims["sub"])]), critical=True)
            .add_extension(x509.UnrecognizedExtension(OLD_ISSUER, claims["iss"].encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER, tagged(0x0C, claims["iss"].encode())), critical=False)
        )
        unlogged = builder.sign(signer.key, hashes.SHA256())
        scts = x509.UnrecognizedExtension(SCTS, tagged(0x04, self.scts(unlogged.tbs_certificate_bytes)))
        leaf = builder.add_extension(scts, critical=False).sign(signer.key, hashes.SHA256())
        chain = [certificate_pem(certificate) for certificate in (leaf, signer.intermediate, signer.root)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def log_id(self):
        return hashlib.sha256(der(self.log_key.public_key())).digest()

    def scts(self, tbs):
        """A list of one SCT (RFC 6962, 3.2 and 3.3) for a certificate before it has the list."""
        time = int(datetime.datetime.now(datetime.timezone.utc).timestamp() * 1000)
        issuer = hashlib.sha256(der(self.authority.key.public_key())).digest()
        signed = struct.pack("!BBQH", 0, 0, time, 1) + issuer + len(tbs).to_bytes(3, "big") + tbs + struct.pack("!H", 0)
        signature = self.log_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        sct = bytes([0]) + self.log_id() + struct.pack("!QHBBH", time, 0, 4, 3, len(signature)) + signature
        return struct.pack("!HH", len(sct) + 2, len(sct)) + sct


class Log:
    """A Merkle tree (RFC 6962, 2.1) and its signed checkpoint (C2SP tlog-checkpoint)."""

    # Entries of others, so that a proof has hashes.
    def __init__(self, origin, leaves=5):
        self.origin = origin
        self.leaves = [f"another's entry {number}".encode() for number in range(leaves)]

    def root(self, leaves):
        if len(leaves) == 1:
            return hashlib.sha256(b"\0" + leaves[0]).digest()
        left, right = self.halves(leaves)
        return hashlib.sha256(b"\1" + self.root(left) + self.root(right)).digest()

    def path(self, index, leaves):
        if len(leaves) == 1:
            return []
        left, right = self.halves(leaves)
        if index < len(left):
            return self.path(index, left) + [self.root(right)]
        return self.path(index - len(left), right) + [self.root(left)]

    @staticmethod
    def halves(leaves):
        size = 1 << ((len(leaves) - 1).bit_length() - 1)
        return leaves[:size], leaves[size:]

    def add(self, body):
        """Index, size, root, path and checkpoint after the entry was added."""
        self.leaves.append(body)
        index, size, root = len(self.leaves) - 1, len(self.leaves), self.root(self.leaves)
        note = f"{self.origin}\n{size}\n{b64(root)}\n"
        signature = b64(self.log_id()[:4] + self.sign(note.encode()))
        name = self.origin.split()[0]
        return index, size, root, self.path(index, self.leaves), f"{note}\n\u2014 {name} {signature}\n"


class RekorV1(Log):
    """Promises at once (SET), with its own time."""

    # Indexes over all trees of the log go on from those of the trees before.
    BEFORE = 1000

    def __init__(self):
        super().__init__("rekor.example - 4711")
        self.key = ec.generate_private_key(ec.SECP256R1())

    def log_id(self):
        return hashlib.sha256(der(self.key.public_key())).digest()

    def sign(self, data):
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def entries(self, request):
        proposed = json.loads(request)
        body = rfc8785.dumps(self.dsse(proposed) if proposed["kind"] == "dsse" else proposed)
        index, size, root, path, checkpoint = self.add(body)
        entry = {
            "body": b64(body),
            "integratedTime": int(now().timestamp()),
            "logID": self.log_id().hex(),
            "logIndex": self.BEFORE + index,
        }
        entry["verification"] = {
            "signedEntryTimestamp": b64(self.sign(rfc8785.dumps(entry))),
            "inclusionProof": {
                "checkpoint": checkpoint,
                "hashes": [node.hex() for node in path],
                "logIndex": index,
                "rootHash": root.hex(),
                "treeSize": size,
            },
        }
        return {hashlib.sha256(b"\0" + body).hexdigest(): entry}

    @staticmethod
    def dsse(proposed):
        """What is kept of an envelope."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        return {
            "apiVersion": proposed["apiVersion"],
            "kind": "dsse",
            "spec": {
                "envelopeHash": sha256_of(content["envelope"].encode()),
                "payloadHash": sha256_of(base64.b64decode(envelope["payload"])),
                "signatures": [
                    {"signature": signature["sig"], "verifier": verifier}
                    for signature, verifier in zip(envelope["signatures"], content["verifiers"], strict=True)
                ],
            },
        }


class RekorV2(Log):
    """Answers when the entry is in the tree, and has no time."""

    def __init__(self):
        super().__init__("log2026.rekor.example")
        self.key = ed25519.Ed25519PrivateKey.generate()

    def log_id(self):
        """Key identifier of C2SP signed-note, in full."""
        raw = self.key.public_key().public_bytes_raw()
        return hashlib.sha256(self.origin.encode() + b"\n\x01" + raw).digest()

    def sign(self, data):
        return self.key.sign(data)

    def entries(self, request):
        proposed = json.loads(request)["hashedRekordRequestV002"]
        data = {"algorithm": "SHA2_256", "digest": proposed["digest"]}
        spec = {"hashedRekordV002": {"data": data, "signature": proposed["signature"]}}
        body = rfc8785.dumps({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec})
        index, size, root, path, checkpoint = self.add(body)
        return {
            "logIndex": str(index),
            "logId": {"keyId": b64(self.log_id())},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": b64(root),
                "treeSize": str(size),
                "hashes": [b64(node) for node in path],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": b64(body),
        }


class Timestamps:
    """A timestamp authority below the same root as the certificates."""

    CONFIGURATION = """[tsa]
serial = serial
signer_digest = sha256
digests = sha256
default_policy = 1.2.3.4.1
ess_cert_id_alg = sha256
"""

    def __init__(self, authority):
        self.directory = tempfile.TemporaryDirectory()
        key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = authority.issue("tsa.example", key, extended=ExtendedKeyUsageOID.TIME_STAMPING)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files = {"tsa.key": pem, "tsa.crt": certificate_pem(self.certificate).encode(), "serial": b"01\n"}
        for name, content in (files | {"openssl.cnf": self.CONFIGURATION.encode()}).items():
            self.path(name).write_bytes(content)

    def path(self, name):
        return pathlib.Path(self.directory.name) / name

    def reply(self, query):
        self.path("query").write_bytes(query)
        command = "openssl ts -reply -config openssl.cnf -section tsa -queryfile query -signer tsa.crt -inkey tsa.key -out reply"
        subprocess.run(command.split(), cwd=self.directory.name, check=True, capture_output=True)
        return self.path("reply").read_bytes()


class Sigstore:
    """All of them behind one address."""

    def __init__(self):
        self.token_secret = secrets.token_hex(32)
        self.fulcio = Fulcio(self.token_secret)
        self.rekor = {1: RekorV1(), 2: RekorV2()}
        self.timestamps = Timestamps(self.fulcio.authority)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handler(self):
        services = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = "application/json"
                if self.path == "/api/v2/signingCert":
                    bearer = self.headers["Authorization"].removeprefix("Bearer ")
                    answer = json.dumps(services.fulcio.signing_cert(body, bearer)).encode()
                elif self.path in ("/api/v1/log/entries", "/api/v2/log/entries"):
                    answer = json.dumps(services.rekor[int(self.path[6])].entries(body)).encode()
                elif self.path == "/api/v1/timestamp":
                    kind, answer = "application/timestamp-reply", services.timestamps.reply(body)
                else:
                    return self.send_error(404)
                self.send_response(201)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        return Handler

    def token(self, identity, issuer):
        time = int(now().timestamp())
        claims = {"iss": issuer, "sub": identity, "aud": AUDIENCE, "iat": time, "nbf": time, "exp": time + 300}
        return jwt.encode(claims, self.token_secret, algorithm="HS256")

    def log(self, key, details, key_id):
        return {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": b64(der(key)), "keyDetails": details, "validFor": period()},
            "logId": {"keyId": b64(key_id)},
        }

    def authority(self, name, certificates):
        return {
            "subject": {"organization": "example", "commonName": name},
            "uri": self.url,
            "certChain": {"certificates": [{"rawBytes": b64(certificate_der(of))} for of in certificates]},
            "validFor": period(),
        }

    def service(self, version, path=""):
        return {"url": self.url + path, "majorApiVersion": version, "validFor": period(), "operator": "example"}

    def trusted_root(self):
        certificate_log = self.fulcio.log_key.public_key()
        above = self.fulcio.authority
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                self.log(self.rekor[1].key.public_key(), "PKIX_ECDSA_P256_SHA_256", self.rekor[1].log_id()),
                self.log(self.rekor[2].key.public_key(), "PKIX_ED25519", self.rekor[2].log_id()),
            ],
            "certificateAuthorities": [self.authority("fulcio", [above.intermediate, above.root])],
            "ctlogs": [self.log(certificate_log, "PKIX_ECDSA_P256_SHA_256", self.fulcio.log_id())],
            "timestampAuthorities": [self.authority("tsa", [self.timestamps.certificate, above.root])],
        }

    def signing_config(self, rekor_version):
        return {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [self.service(1)],
            "oidcUrls": [],
            "rekorTlogUrls": [self.service(rekor_version)],
            "rekorTlogConfig": {"selector": "ANY"},
            # The second version of the log gives no time of its own.
            "tsaUrls": [self.service(1, "/api/v1/timestamp")] if rekor_version == 2 else [],
            "tsaConfig": {"selector": "ANY"},
        }
