"""Runs one Python SMB client library in a loop: put, get, compare, rename, list, delete.

Arguments: the library, the server's address, a share, a user, the seconds, a file to put. The password is read from
standard input. Prints the number of loops; ends with an error at the first failure.
"""

import io
import sys
import time


class Impacket:
    def __init__(self, host, share, user, password):
        from impacket.smbconnection import SMBConnection

        self.share = share
        self.conn = SMBConnection(host, host, timeout=60)
        self.conn.login(user, password)

    def put(self, name, data):
        self.conn.putFile(self.share, name, io.BytesIO(data).read)

    def get(self, name):
        taken = io.BytesIO()
        self.conn.getFile(self.share, name, taken.write)
        return taken.getvalue()

    def rename(self, before, after):
        self.conn.rename(self.share, before, after)

    def names(self):
        return [entry.get_longname() for entry in self.conn.listPath(self.share, "*")]

    def delete(self, name):
        self.conn.deleteFile(self.share, name)


class Pysmb:
    def __init__(self, host, share, user, password):
        from smb.SMBConnection import SMBConnection

        self.share = share
        self.conn = SMBConnection(user, password, "client", "OUTLAST", use_ntlm_v2=True, is_direct_tcp=True)
        if not self.conn.connect(host, 445):
            raise RuntimeError("the login was refused")

    def put(self, name, data):
        self.conn.storeFile(self.share, name, io.BytesIO(data))

    def get(self, name):
        taken = io.BytesIO()
        self.conn.retrieveFile(self.share, name, taken)
        return taken.getvalue()

    def rename(self, before, after):
        self.conn.rename(self.share, before, after)

    def names(self):
        return [entry.filename for entry in self.conn.listPath(self.share, "/")]

    def delete(self, name):
        self.conn.deleteFiles(self.share, name)


class Smbprotocol:
    def __init__(self, host, share, user, password):
        import smbclient

        smbclient.ClientConfig(username=user, password=password)
        self.smb = smbclient
        self.root = rf"\\{host}\{share}"

    def path(self, name):
        return rf"{self.root}\{name}"

    def put(self, name, data):
        with self.smb.open_file(self.path(name), mode="wb") as file:
            for at in range(0, len(data), 1 << 20):
                file.write(data[at : at + (1 << 20)])

    def get(self, name):
        with self.smb.open_file(self.path(name), mode="rb") as file:
            return file.read()

    def rename(self, before, after):
        self.smb.rename(self.path(before), self.path(after))

    def names(self):
        return self.smb.listdir(self.root)

    def delete(self, name):
        self.smb.remove(self.path(name))


LIBRARIES = {"impacket": Impacket, "pysmb": Pysmb, "smbprotocol": Smbprotocol}


def main():
    library, host, share, user, seconds, source = sys.argv[1:]
    password = sys.stdin.readline().rstrip("\n")
    with open(source, "rb") as file:
        data = file.read()
    client = LIBRARIES[library](host, share, user, password)
    put, renamed = f"{library}.put", f"{library}.renamed"
    over = time.monotonic() + float(seconds)
    loops = 0
    while time.monotonic() < over:
        client.put(put, data)
        if client.get(put) != data:
            sys.exit("the data differ")
        client.rename(put, renamed)
        names = client.names()
        if renamed not in names or put in names:
            sys.exit(f"the names are wrong: {names}")
        client.delete(renamed)
        loops += 1
    print(loops)


main()
