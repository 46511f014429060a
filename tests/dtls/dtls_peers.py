"""Real peers in other processes: finding them, running our engines against them on loopback, and files for them."""

import os
import select
import shutil
import socket
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PATIENCE = 20.0


def need(*programs):
    """Skip without these programs; in CI, fail."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (scripts/system-packages test)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def free_port(pairs=1):
    """A UDP port on loopback such that it and the next ``pairs`` - 1 are free."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                for more in range(1, pairs):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                        other.bind(("127.0.0.1", port + more))
            except OSError:
                continue
            return port


class Driver:
    """Turns an engine on a UDP socket until a condition holds."""

    def __init__(self, engine):
        self.engine = engine
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.events = []

    def close(self):
        self.socket.close()

    def run(self, until, patience=PATIENCE):
        """True once ``until()`` holds, False when patience is over."""
        end = time.monotonic() + patience
        while True:
            now = time.monotonic()
            while (event := self.engine.next_event()) is not None:
                self.events.append(event)
            for data, path in self.engine.datagrams_to_send(now):
                self.socket.sendto(data, path)
            if until():
                return True
            if now > end:
                return False
            due = self.engine.next_timeout()
            wait = min(0.05, end - now, 0.05 if due is None else max(0.0, due - now))
            if select.select([self.socket], [], [], max(0.0, wait))[0]:
                data, path = self.socket.recvfrom(65535)
                self.engine.receive_datagram(data, path, time.monotonic())
            due = self.engine.next_timeout()
            if due is not None and due <= time.monotonic():
                self.engine.handle_timeout(time.monotonic())

    def found(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class Process:
    """A peer's process; its output goes to a file that can be looked at while it runs."""

    def __init__(self, folder, *command, **more):
        self.file = folder / f"{os.path.basename(command[0])}.{len(list(folder.iterdir()))}.log"
        self.output = self.file.open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self.output, stderr=subprocess.STDOUT, **more
        )

    def said(self):
        return self.file.read_bytes()

    def tell(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ended(self):
        return self.process.poll() is not None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.output.close()


def listening(port, protocol="udp"):
    """Whether somebody listens on a UDP port of this machine."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            with open(table) as rows:
                if any(row.split()[1].endswith(wanted) for row in list(rows)[1:]):
                    return True
        except OSError:
            continue
    return False


def wait_for(condition, patience=PATIENCE):
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        select.select([], [], [], 0.02)
    return True


def key_pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate_pem(der):
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
