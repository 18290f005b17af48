"""A real nginx with a configuration of its own, as a proxy in front of a server."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection

import pytest

from support.free_ports import free_port

_CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port}{tls};
        {lines}
        location / {{
            proxy_pass {target};
            {proxy}
        }}
    }}
}}
"""


@contextmanager
def nginx(target: str, folder: Path, *, cert: Path | None = None, proxy: str = "") -> Iterator[int]:
    """Gives its port. `cert` is a folder with tls.crt and tls.key; `proxy` holds more lines beside
    `proxy_pass`."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    folder.mkdir()
    port = free_port()
    lines = f"ssl_certificate {cert}/tls.crt; ssl_certificate_key {cert}/tls.key;" if cert else ""
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=folder,
            port=port,
            tls=" ssl" if cert else "",
            lines=lines,
            target=target,
            proxy=proxy,
            user=user,
        )
    )
    words = [program, "-c", str(config), "-p", str(folder), "-e", f"{folder}/error.log"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < deadline:
        try:
            create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("nginx did not start")
