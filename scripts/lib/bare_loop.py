"""Sends pieces over TCP and waits for a byte after each: the upper limit for shipping a log over the same link.

    bare_loop.py listen ADDRESS PORT        takes one connection
    bare_loop.py send ADDRESS PORT MIB      prints MiB per second
"""

import socket
import sys
import time

PIECE = 256 << 10


def listen(address, port):
    buffer = bytearray(PIECE)
    with socket.create_server((address, port)) as listener:
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                left = memoryview(buffer)
                while left:
                    got = connection.recv_into(left)
                    if got == 0:
                        return
                    left = left[got:]
                connection.sendall(b".")


def send(address, port, mib):
    piece = bytes(PIECE)
    until = time.monotonic() + 10
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=60)
            break
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.monotonic()
        for _ in range(mib * (1 << 20) // PIECE):
            connection.sendall(piece)
            if connection.recv(1) != b".":
                raise ConnectionError("the other end has gone")
        print(f"{mib / (time.monotonic() - begun):.0f}")


if sys.argv[1] == "listen":
    listen(sys.argv[2], int(sys.argv[3]))
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
