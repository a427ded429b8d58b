"""Shared parts of the deployment tests: child processes, and a WebSocket client without dependencies."""

import os
import pathlib
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import unittest

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
SIGVER = os.environ["SIGVER"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_listening(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Deployed(unittest.TestCase):
    """A test that starts programs and terminates them at its end."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        # Servers whose workers run as another user must read the files.
        self.folder.chmod(0o755)

    def run_program(self, command, port, **environment):
        """Starts a program and waits until it listens. Returns the file with its output."""
        output = self.folder / f"{pathlib.Path(command[0]).name}-{port}.log"
        with output.open("w") as log:
            program = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

        def end():
            program.terminate()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

        self.addCleanup(end)
        self.eventually(f"{command[0]} listens", lambda: is_listening(port) or program.poll() is not None)
        self.assertIsNone(program.poll(), output.read_text())
        self.programs = [*getattr(self, "programs", []), program]
        return output

    def run_sigver(self, *flags):
        """Starts sigver-server. Returns its port and its log."""
        port = free_port()
        return port, self.run_program([SIGVER, "--listen", f"127.0.0.1:{port}", *flags], port)

    def eventually(self, what, question, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = question()
            except OSError:
                answer = None
            if answer:
                return answer
            if time.monotonic() > deadline:
                self.fail(f"not within {seconds} s: {what}")
            time.sleep(0.05)


class Client:
    """A minimal WebSocket client."""

    def __init__(self, port, path="/", headers="", tls=None, source="127.0.0.1"):
        stream = socket.create_connection(("127.0.0.1", port), timeout=15, source_address=(source, 0))
        self.stream = tls.wrap_socket(stream, server_hostname="example.org") if tls else stream
        self.bytes = b""
        self.stream.sendall(
            f"GET {path} HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n".encode()
        )
        while b"\r\n\r\n" not in self.bytes:
            more = self.stream.recv(4096)
            if not more:
                break
            self.bytes += more
        head, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        self.head = head.decode()

    @property
    def status(self):
        return int(self.head.split(" ")[1])

    def rest(self):
        """Returns the body of a response other than 101."""
        lengths = [line for line in self.head.lower().split("\r\n") if line.startswith("content-length:")]
        return self.take(int(lengths[0].partition(":")[2])).decode()

    def frame(self, opcode, payload):
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        else:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        self.stream.sendall(head + bytes(4) + payload)

    def send(self, text):
        self.frame(1, text.encode())

    def take(self, count):
        while len(self.bytes) < count:
            more = self.stream.recv(65536)
            if not more:
                raise EOFError("connection closed")
            self.bytes += more
        taken, self.bytes = self.bytes[:count], self.bytes[count:]
        return taken

    def receive(self):
        """Returns the next text, or (code, reason) of a close frame. Answers pings."""
        while True:
            first, length = self.take(2)
            if length == 126:
                (length,) = struct.unpack("!H", self.take(2))
            payload = self.take(length)
            match first & 15:
                case 1:
                    return payload.decode()
                case 8:
                    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()
                case 9:
                    self.frame(10, payload)

    def close(self):
        self.stream.close()


def session(connect, key="tea"):
    """Connects an opener and a joiner that have exchanged a message each way."""
    opener = connect()
    opener.send(f'{{"type":"open","key":"{key}"}}')
    # The plain dialect does not acknowledge an open, and a joiner that is too early is rejected, so this retries.
    for _ in range(100):
        joiner = connect()
        joiner.send(f'{{"type":"join","key":"{key}"}}')
        joiner.send('{"type":"offer"}')
        opener.stream.settimeout(0.1)
        try:
            received = opener.receive()
            break
        except TimeoutError:
            joiner.close()
    opener.stream.settimeout(15)
    assert received == '{"type":"join"}', received
    assert opener.receive() == '{"type":"offer","index":0}'
    opener.send('{"type":"answer","index":0}')
    received = joiner.receive()
    assert received == '{"type":"answer","index":0}', received
    return opener, joiner


def certificate(folder):
    """Creates a self-signed certificate for example.org. Returns its files and a context that trusts it."""
    files = folder / "fullchain.pem", folder / "privkey.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=example.org -addext subjectAltName=DNS:example.org"
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    files[1].chmod(0o644)
    return files, ssl.create_default_context(cafile=files[0])


def get(port, path, tls):
    """Returns the body of the response to a plain GET."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as plain:
        with tls.wrap_socket(plain, server_hostname="example.org") as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while more := stream.recv(65536):
                answer += more
    return answer.partition(b"\r\n\r\n")[2].decode()
