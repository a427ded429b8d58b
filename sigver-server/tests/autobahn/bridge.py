"""Turns sigver-server into an echo server, for test suites that require one.

Each connection of the test suite becomes a joiner: the bridge forwards its handshake and frames, and forwards back what the joiner
receives. The bridge is also the opener of the joiner's key, which echoes everything. FIN, reserved bits, opcode, mask and TCP segments of a
frame are preserved, valid or not. Only the payload of text messages changes: the bridge wraps it in a JSON string, and unwraps the echo.

An echo server answers a message before it reads the next one. Likewise, after a text message, the bridge waits for its echo before it
forwards more. Otherwise the order of messages and echoes would be random.
"""

import asyncio
import itertools
import re
import struct

CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA

# The envelope of a message. sigver-server appends the index for the opener, and relays the opener's messages unchanged.
BEFORE, AFTER = b'{"d":"', b'"}'
AFTER_INDEX = b'","index":0}'

TO_ESCAPE = re.compile(rb'[\x00-\x1f"\\]')
ESCAPED = re.compile(rb"\\u00([0-9a-f]{2})")

# Maximum bytes per read.
CHUNK = 256 * 1024

# Timeout in seconds for a connection to start, and for all connections to end.
TIMEOUT = 30

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: sigver\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def escape(payload):
    return TO_ESCAPE.sub(lambda found: b"\\u%04x" % found[0][0], payload)


def unescape(payload):
    return ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), payload)


def masked(payload, mask, offset):
    """Masks or unmasks a part of a payload at this offset."""
    if not mask or not any(mask):
        return payload
    start = offset % 4
    key = (mask * (len(payload) // 4 + 2))[start : start + len(payload)]
    plain = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return plain.to_bytes(len(payload), "little")


def header(first, length, mask=None):
    """Returns the header of a frame with the shortest form of its length, and with a mask if it is from a client."""
    bit = 0x80 if mask is not None else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 0x10000:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (mask or b"")


class Head:
    """The header of a frame as received."""

    def __init__(self):
        self.bytes = b""
        self.reads = 0

    async def more(self, reader, length):
        end = len(self.bytes) + length
        while len(self.bytes) < end:
            self.bytes += await some(reader, end - len(self.bytes))
            self.reads += 1
        return self.bytes[end - length :]

    @classmethod
    async def read(cls, reader):
        head = cls()
        head.first, second = await head.more(reader, 2)
        head.fin, head.opcode = bool(head.first & 0x80), head.first & 0x0F
        head.length = second & 0x7F
        expected = 1
        if head.length >= 126:
            expected += 1
            size = 2 if head.length == 126 else 8
            head.length = int.from_bytes(await head.more(reader, size), "big")
        head.mask = None
        if second & 0x80:
            expected += 1
            head.mask = await head.more(reader, 4)
        head.is_split = head.reads > expected
        return head


class Joiner:
    """A connection of the test suite and its connection to sigver-server."""

    def __init__(self, client, sigver):
        self.client_reader, self.client_writer = client
        self.reader, self.writer = sigver
        # Whether a text message is incomplete.
        self.in_text = False
        self.echoed = asyncio.Event()
        self.is_closing = False

    async def run(self):
        await asyncio.gather(self.forward(), self.forward_back())

    async def forward(self):
        """Forwards frames to sigver-server until the client closes."""
        try:
            while True:
                await self.forward_frame(await Head.read(self.client_reader))
        except (EOFError, OSError):
            finish(self.writer)

    async def forward_frame(self, head):
        begins = head.opcode == TEXT and not self.in_text
        is_text = begins or (head.opcode == CONTINUATION and self.in_text)
        if is_text:
            self.in_text = not head.fin
        awaits_echo = is_text and head.fin
        if awaits_echo and not self.is_closing:
            self.echoed.clear()
        before = BEFORE if begins else b""
        after = AFTER if awaits_echo else b""
        left, sent = head.length, None
        while sent is None or left:
            piece = await some(self.client_reader, min(left, CHUNK))
            plain = masked(piece, head.mask, head.length - left)
            left -= len(piece)
            if is_text:
                plain = escape(plain)
            if sent is None:
                # The header needs the length before the payload is complete. It is correct if the rest needs no escapes.
                length = len(before) + len(plain) + left + len(after)
                await self.forward_header(header(head.first, length, head.mask), head.is_split)
                sent, plain = 0, before + plain
            if not left:
                plain += after
            self.writer.write(masked(plain, head.mask, sent))
            await self.writer.drain()
            sent += len(plain)
        assert sent == length, "escapes in a frame that is split"
        if awaits_echo:
            await self.echoed.wait()

    async def forward_header(self, head, is_split):
        for piece in (head[at : at + 1] for at in range(len(head))) if is_split else (head,):
            self.writer.write(piece)
            await self.writer.drain()

    async def forward_back(self):
        """Forwards frames to the client until sigver-server closes."""
        try:
            while True:
                head = await Head.read(self.reader)
                payload = await self.reader.readexactly(head.length)
                if head.opcode == TEXT:
                    assert payload.startswith(BEFORE) and payload.endswith(AFTER_INDEX), payload[:80]
                    payload = unescape(payload[len(BEFORE) : -len(AFTER_INDEX)])
                self.client_writer.write(header(head.first, len(payload)) + payload)
                await self.client_writer.drain()
                if head.opcode == TEXT:
                    self.echoed.set()
                elif head.opcode == CLOSE:
                    self.stop_waiting()
        except (EOFError, OSError):
            self.stop_waiting()
            finish(self.client_writer)

    def stop_waiting(self):
        self.is_closing = True
        self.echoed.set()


async def some(reader, most):
    """Reads at least one byte, unless `most` is 0."""
    piece = await reader.read(most)
    if most and not piece:
        raise EOFError
    return piece


def finish(writer):
    try:
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def client_frame(opcode, payload):
    return header(0x80 | opcode, len(payload), bytes(4)) + payload


async def connect(address, request):
    """Connects to sigver-server. Returns the streams and the response to the request."""
    streams = await asyncio.open_connection(*address, limit=CHUNK)
    streams[1].write(request)
    return streams, await streams[0].readuntil(b"\r\n\r\n")


async def echo_frames(reader, writer):
    """Echoes text messages and answers pings until the connection ends."""
    try:
        while True:
            head = await Head.read(reader)
            payload = await reader.readexactly(head.length)
            if head.opcode in (TEXT, PING):
                writer.write(client_frame(TEXT if head.opcode == TEXT else PONG, payload))
                await writer.drain()
    except (EOFError, OSError):
        pass


class Bridge:
    """Listens for connections of the test suite and connects them to the sigver-server at an address."""

    def __init__(self, sigver):
        self.sigver = sigver
        self.numbers = itertools.count()
        self.connections = []

    async def start(self):
        """Listens on a free port of the loopback interface. Returns the port."""
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=CHUNK)
        return self.server.sockets[0].getsockname()[1]

    async def finish(self):
        """Waits until every connection has ended. Raises the first error."""
        self.server.close()
        await asyncio.wait_for(asyncio.gather(*self.connections), TIMEOUT)

    def accept(self, *client):
        self.connections.append(asyncio.create_task(self.serve(*client)))

    async def serve(self, *client):
        writers = [client[1]]
        try:
            joiner, opener, answer = await asyncio.wait_for(self.begin(client[0], writers), TIMEOUT)
            echo = asyncio.create_task(echo_frames(*opener))
            client[1].write(answer)
            await Joiner(client, joiner).run()
        finally:
            for writer in writers:
                writer.close()
        await echo

    async def begin(self, client_reader, writers):
        """Connects an opener, and a joiner with the handshake of the client. Returns both and the response to the handshake."""
        key = b"autobahn %d" % next(self.numbers)
        request = await client_reader.readuntil(b"\r\n\r\n")
        opener, _ = await connect(self.sigver, HANDSHAKE)
        writers.append(opener[1])
        opener[1].write(client_frame(TEXT, b'{"type":"open","key":"%s"}' % key) + client_frame(PING, b""))
        pong = await Head.read(opener[0])
        assert pong.opcode == PONG, "the key is not open"
        joiner, answer = await connect(self.sigver, request)
        writers.append(joiner[1])
        joiner[1].write(client_frame(TEXT, b'{"type":"join","key":"%s"}' % key))
        notice = await Head.read(opener[0])
        assert await opener[0].readexactly(notice.length) == b'{"type":"join"}'
        return joiner, opener, answer
