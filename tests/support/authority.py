"""A certificate authority for one test, made with openssl."""

import shutil
import subprocess
from pathlib import Path

import pytest

_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Authority:
    """Signs certificates. Each has a folder for `--tls`: tls.crt, tls.key, ca.crt."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        folder.mkdir(parents=True)
        self._folder = folder
        self.ca = folder / "ca.crt"
        self._key = folder / "ca.key"
        _openssl(
            f"req -x509 {_KEY} -days 2 -subj /CN=authority -keyout {self._key} -out {self.ca} "
            "-addext keyUsage=critical,keyCertSign,cRLSign"
        )

    def issue(self, name: str, sans: str = "IP:127.0.0.1,DNS:localhost", *, days: int = 2) -> Path:
        """Returns the folder of a new certificate. With 0 `days` it has expired."""
        folder = self._folder / name
        folder.mkdir()
        request, extensions = folder / "request", folder / "extensions"
        extensions.write_text(f"subjectAltName={sans}\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl(f"req {_KEY} -subj /CN={name} -keyout {folder}/tls.key -out {request}")
        _openssl(
            f"x509 -req -in {request} -CA {self.ca} -CAkey {self._key} -CAcreateserial "
            f"-days {days} -extfile {extensions} -out {folder}/tls.crt"
        )
        shutil.copy(self.ca, folder)
        return folder


def _openssl(words: str) -> None:
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
