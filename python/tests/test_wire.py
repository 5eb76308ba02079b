"""The client against a socket that answers as it is told, well or not."""

import os
import re
import socket
import tempfile
import threading
import unittest

import condafs


class Wire(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "c.sock")
        self.asked = b""

    def answered(self, *pieces: bytes) -> condafs.Client:
        """A client whose first request is answered by these bytes, and a hung-up connection."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(1)

        def serve():
            with listener, listener.accept()[0] as c:
                while not self.complete():
                    self.asked += c.recv(1 << 16)
                for p in pieces:
                    c.sendall(p)

        t = threading.Thread(target=serve, daemon=True)
        t.start()
        self.addCleanup(t.join, 30)
        return condafs.Client(self.path)

    def complete(self) -> bool:
        head, end, body = self.asked.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        return bool(end) and len(body) >= (int(length.group(1)) if length else 0)

    @staticmethod
    def ok(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def test_result(self):
        c = self.answered(self.ok(b'{"result":{"version":"v9","head":4,"shelf":null}}\n'))
        self.assertEqual(c.status(), condafs.Status(version="v9", head=4))
        self.assertTrue(self.asked.startswith(b"GET /v1/status HTTP/1.1\r\n"))

    def test_progress_comes_before_the_result(self):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        lines = [b'{"progress":{"done":1}}\n', b'{"progress":{"done":2}}\n', b'{"result":{"bytes":8}}\n']
        c = self.answered(head, *(b"%x\r\n%s\r\n" % (len(x), x) for x in lines), b"0\r\n\r\n")
        seen = []
        self.assertEqual(c.gc(progress=lambda p: seen.append(p.done)).bytes, 8)
        self.assertEqual(seen, [1, 2])

    def test_names_cannot_leave_their_place_in_the_address(self):
        c = self.answered(self.ok(b'{"result":{}}\n'))
        c.package("../x?y\r\nz")
        self.assertTrue(self.asked.startswith(b"GET /v1/packages/..%2Fx%3Fy%0D%0Az HTTP/1.1\r\n"))

    def test_error(self):
        c = self.answered(self.ok(b'{"error":{"op":"gc","kind":"busy","hint":"wait"}}\n'))
        with self.assertRaises(condafs.BusyError) as e:
            c.gc()
        self.assertEqual(str(e.exception), "gc: busy; wait")

    def test_bad_answers(self):
        for answer, kind in (
            (b"", "not mounted"), (b"SSH-2.0\r\n", "not mounted"), (self.ok(b""), "not mounted"), (self.ok(b"["), "version"), (self.ok(b"[]\n"), "version"),
            (self.ok(b'{"result":{"head":"x"}}\n'), "version"), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "not mounted"),
        ):
            with self.subTest(answer), self.assertRaises(condafs.CondafsError) as e:
                self.answered(answer).status()
            self.assertEqual(e.exception.kind, kind, answer)
            os.unlink(self.path)
            self.asked = b""

    def test_nobody_listens(self):
        with self.assertRaises(condafs.NotMountedError) as e:
            condafs.Client(self.path).status()
        self.assertIn("condafs mount", e.exception.hint)

    def test_silence_is_bounded_if_wanted(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen(1)
            with self.assertRaises(condafs.CondafsError) as e:
                condafs.Client(self.path, timeout=0.05).status()
        self.assertEqual(e.exception.kind, "input/output")


if __name__ == "__main__":
    unittest.main()
