"""Certificates made with openssl: authorities and what they sign."""

import subprocess

import pytest

EC_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Authority:
    """A certificate authority with its files in `folder`, which is made."""

    def __init__(self, folder, name="authority"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        openssl("req", "-x509", *EC_KEY, "-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}", "-days", "2")

    def issue(self, name, days=2, names="IP:127.0.0.1,DNS:localhost"):
        """(certificate file, key file) of a leaf for `names`; negative `days` make one that has expired."""
        certificate, key, request, extensions = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
        extensions.write_text(f"subjectAltName={names}\n")
        openssl("req", *EC_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", days,
                "-extfile", extensions, "-out", certificate)
        return certificate, key


@pytest.fixture(scope="module")
def make_authority(tmp_path_factory):
    """make_authority(name) -> Authority."""
    return lambda name: Authority(tmp_path_factory.mktemp("authority"), name)
