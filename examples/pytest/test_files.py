"""Sample tests of a program that keeps its files on a server.

`outlast lab -- pytest examples/pytest` runs them (examples/pytest/run installs their packages). The lab has its own
server, which the tests kill and restart while files are in use. The program under test does not notice.
"""

import os
import subprocess
import threading

import pytest
import smbclient

PIECE = 1 << 20
PIECES = 16


def outlast(*words):
    """Runs a command for the server that OUTLAST_CONFIG in the environment names."""
    subprocess.run([os.environ["OUTLAST"], *words], check=True)


@pytest.fixture
def share():
    address = os.environ["OUTLAST_ADDRESS"]
    smbclient.register_session(
        address,
        username=os.environ["OUTLAST_USER"],
        password=os.environ["OUTLAST_PASSWORD"],
    )
    yield rf"\\{address}\pub"
    smbclient.reset_connection_cache()


def store(path, content, before_piece=lambda index: None):
    """The program under test."""
    with smbclient.open_file(path, mode="wb") as file:
        for index in range(PIECES):
            before_piece(index)
            file.write(content[index * PIECE : (index + 1) * PIECE])


def load(path):
    with smbclient.open_file(path, mode="rb") as file:
        return file.read()


@pytest.mark.parametrize("fault", ["crash", "reboot"])
def test_a_file_is_whole_although_the_server_dies_meanwhile(share, fault):
    content = os.urandom(PIECE * PIECES)
    path = rf"{share}\{fault}"
    store(path, content, lambda index: outlast(fault) if index in (3, 9) else None)
    assert load(path) == content
    # The file on the server's disk is the same.
    with open(os.path.join(os.environ["OUTLAST_DIRECTORY"], fault), "rb") as file:
        assert file.read() == content


def test_files_are_whole_although_the_server_dies_at_any_time(share):
    content = os.urandom(PIECE * PIECES)
    done = threading.Event()
    crashes = 0

    def crash():
        nonlocal crashes
        while crashes < 20 and not done.is_set():
            outlast("crash")
            crashes += 1

    killer = threading.Thread(target=crash)
    killer.start()
    try:
        rounds = 0
        while rounds < 100 and (rounds < 3 or crashes < 3):
            path = rf"{share}\round{rounds % 3}"
            store(path, content)
            assert load(path) == content
            rounds += 1
    finally:
        done.set()
        killer.join()
    assert crashes >= 3
