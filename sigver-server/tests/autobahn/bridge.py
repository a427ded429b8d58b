"""Makes an echo server of sigver, for clients that test WebSocket servers by what they echo.

Each connection of such a client becomes a joiner of sigver: its handshake and its frames are passed on, and what the joiner
gets is passed back. The opener of the joiner's key, which sends everything back, is the bridge's own. What a frame is made of
(FIN, reserved bits, opcode, mask, the pieces in which TCP brings it) is kept, whether legal or not. Only the payload of text
messages changes: it becomes the inside of one JSON string, and loses what JSON adds on its way back.

Like an echo server, which answers a message before it reads on, the bridge passes on what follows a text message when its echo
is there. Without that, what a client sends at once would meet its own echoes in no particular order.
"""

import asyncio
import itertools
import re
import struct

CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA

# A message on the opener's side, and on its way back: sigver puts the index behind, and passes what the opener says unchanged.
BEFORE, AFTER = b'{"d":"', b'"}'
AFTER_INDEX = b'","index":0}'

TO_ESCAPE = re.compile(rb'[\x00-\x1f"\\]')
ESCAPED = re.compile(rb"\\u00([0-9a-f]{2})")

# As much as is read at once.
CHUNK = 256 * 1024

# How many seconds a connection may take to begin, and all of them to end when the client has gone. Only a failure waits so long.
PATIENCE = 30

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: sigver\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def escape(payload):
    return TO_ESCAPE.sub(lambda found: b"\\u%04x" % found[0][0], payload)


def unescape(payload):
    return ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), payload)


def masked(payload, mask, offset):
    """The payload that stands at this offset of a frame, masked or unmasked."""
    if not mask or not any(mask):
        return payload
    start = offset % 4
    key = (mask * (len(payload) // 4 + 2))[start : start + len(payload)]
    plain = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return plain.to_bytes(len(payload), "little")


def header(first, length, mask=None):
    """A frame's header: its first byte, the shortest form of its length, the mask that a client has."""
    bit = 0x80 if mask is not None else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 0x10000:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (mask or b"")


class Head:
    """The header of a frame, as it came."""

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
        head.in_pieces = head.reads > expected
        return head


class Joiner:
    """One connection of the client that tests, and the joiner that it is for sigver."""

    def __init__(self, client, sigver):
        self.client_reader, self.client_writer = client
        self.reader, self.writer = sigver
        # Whether a text message has begun whose end is still to come.
        self.in_text = False
        self.echoed = asyncio.Event()
        self.is_closing = False

    async def run(self):
        await asyncio.gather(self.there(), self.back())

    async def there(self):
        """Passes frames to sigver until the client has no more."""
        try:
            while True:
                await self.frame_there(await Head.read(self.client_reader))
        except (EOFError, OSError):
            finish(self.writer)

    async def frame_there(self, head):
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
                # The length goes first. When the payload is not all here, it is right if nothing has to be escaped.
                length = len(before) + len(plain) + left + len(after)
                await self.head_there(header(head.first, length, head.mask), head.in_pieces)
                sent, plain = 0, before + plain
            if not left:
                plain += after
            self.writer.write(masked(plain, head.mask, sent))
            await self.writer.drain()
            sent += len(plain)
        assert sent == length, "something to escape in a frame that came in pieces"
        if awaits_echo:
            await self.echoed.wait()

    async def head_there(self, head, in_pieces):
        for piece in (head[at : at + 1] for at in range(len(head))) if in_pieces else (head,):
            self.writer.write(piece)
            await self.writer.drain()

    async def back(self):
        """Passes frames to the client until sigver has no more."""
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
                    self.no_more_echoes()
        except (EOFError, OSError):
            self.no_more_echoes()
            finish(self.client_writer)

    def no_more_echoes(self):
        self.is_closing = True
        self.echoed.set()


async def some(reader, most):
    """At least one byte, if there are to be any."""
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
    """A connection to sigver, and its answer to the request."""
    streams = await asyncio.open_connection(*address, limit=CHUNK)
    streams[1].write(request)
    return streams, await streams[0].readuntil(b"\r\n\r\n")


async def send_back(reader, writer):
    """What the opener does for the rest of its life."""
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
    """Listens for clients that test, and connects them to the sigver at an address."""

    def __init__(self, sigver):
        self.sigver = sigver
        self.numbers = itertools.count()
        self.connections = []

    async def start(self):
        """Listens on a free port of the loopback interface, and returns it."""
        self.server = await asyncio.start_server(self.take, "127.0.0.1", 0, limit=CHUNK)
        return self.server.sockets[0].getsockname()[1]

    async def finish(self):
        """Waits until every connection has ended, and raises what went wrong with one."""
        self.server.close()
        await asyncio.wait_for(asyncio.gather(*self.connections), PATIENCE)

    def take(self, *client):
        self.connections.append(asyncio.create_task(self.serve(*client)))

    async def serve(self, *client):
        writers = [client[1]]
        try:
            joiner, opener, answer = await asyncio.wait_for(self.begin(client[0], writers), PATIENCE)
            echo = asyncio.create_task(send_back(*opener))
            client[1].write(answer)
            await Joiner(client, joiner).run()
        finally:
            for writer in writers:
                writer.close()
        await echo

    async def begin(self, client_reader, writers):
        """An opener, a joiner that made the client's handshake, and the answer to that."""
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
