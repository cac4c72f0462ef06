"""Messages over a socket, with file descriptors; the other end's closing is noticed at once, without polling."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct

HEADER = struct.Struct("<QB")
"""Length of the message, and whether a descriptor comes with it."""

SHORT = 1 << 14
"""Bytes; a shorter message is copied, to be sent in one call."""

LOST = -1
"""Represents a descriptor that this process could not receive because it has too many files open."""


class Channel:
    """One end of a socket pair; each message arrives whole, in order.

    >>> ours, theirs = Channel.pair()
    >>> ours.send(b"hello")
    >>> theirs.receive()
    (b'hello', None)
    >>> ours.close()
    >>> theirs.receive()
    Traceback (most recent call last):
    EOFError: the other end is closed
    >>> theirs.close()
    """

    __slots__ = ("__weakref__", "socket")

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(None)  # a program may have set a default for all sockets
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.socket.fileno()

    @property
    def has_room(self) -> bool:
        """Whether a short message (some KiB) can be sent without waiting for the other end to read."""
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        return bool(poll.poll(0))  # on Linux: if no more than a quarter of the socket's memory is taken

    def send(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a message; raises OSError if the other end is closed."""
        header = HEADER.pack(len(message), descriptor is not None)
        if descriptor is not None:
            socket.send_fds(self.socket, [header], [descriptor])
            self.socket.sendall(message)
        elif len(message) < SHORT:
            self.socket.sendall(header + message)
        else:
            self.socket.sendall(header)
            self.socket.sendall(message)

    def receive(self) -> tuple[bytes, int | None]:
        """Wait for a message, and the descriptor that comes with it; raises EOFError if the other end is closed."""
        descriptors: list[int] = []
        try:
            header, descriptors, _, _ = socket.recv_fds(self.socket, HEADER.size, 1)
            length, has_descriptor = HEADER.unpack(header + self._exactly(HEADER.size - len(header)))
            message = self._exactly(length)
        except (ConnectionError, EOFError) as error:  # the first: from Linux, if it closed with something unread
            for descriptor in descriptors:
                os.close(descriptor)
            raise EOFError("the other end is closed") from error
        if has_descriptor and not descriptors:
            return message, LOST
        return message, descriptors[0] if descriptors else None

    def shut(self) -> None:
        """End the connection at both ends, and wake whoever waits at either."""
        with contextlib.suppress(OSError):  # the other end was first
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end, which the other end notices."""
        self.socket.close()

    def _exactly(self, length: int) -> bytes:
        pieces = bytearray(length)
        view, filled = memoryview(pieces), 0
        while filled < length:
            count = self.socket.recv_into(view[filled:])
            if not count:
                raise EOFError("the other end is closed")
            filled += count
        return bytes(pieces)


def close_quietly(descriptor: int | None) -> None:
    """Close a descriptor, if there is one."""
    if descriptor is not None:
        os.close(descriptor)
