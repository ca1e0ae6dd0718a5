"""Certificates of an authority that only tests trust."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NO_USES = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
NO_USES += ["crl_sign", "encipher_only", "decipher_only"]


def issued(folder: Path, name: str) -> tuple[Path, Path]:
    """Where the certificate of a new authority is, and that of the server *name* with its key."""
    ours, its = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(_certificate("ours", ours, ours))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key = its.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (folder / "server.pem").write_bytes(_certificate(name, its, ours) + key)
    return folder / "ca.pem", folder / "server.pem"


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> bytes:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, "ours"))
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day)
    made = made.add_extension(x509.BasicConstraints(ca=key is by, path_length=None), critical=True)
    # Since 3.13 Python wants to see whose key is whose.
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    if key is by:
        made = made.add_extension(x509.KeyUsage(key_cert_sign=True, **dict.fromkeys(NO_USES, False)), critical=True)
    else:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return made.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
