"""Tests of the stranger's parts: what it says, and what it is made of."""

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from guest import cpio, depends
from registration import (CO_LOCATED, GRE, GRE_KEY, MOBILE_HOME_AUTHENTICATION, NTP_OFFSET, REVERSE_TUNNEL,
                          Association, RegistrationError, Reply, Request, timestamp)

ASSOCIATION = Association(256, bytes(range(16)))


def request() -> Request:
    """A request for GRE with a key."""
    return Request("10.1.0.10", "10.0.1.2", "10.0.8.2", 300, CO_LOCATED | GRE | REVERSE_TUNNEL,
                   [(GRE_KEY, bytes.fromhex("c0ffee01"))], 0x0123456789ABCDEF)


def reply(code=0, identification=0x1111111189ABCDEF, home_address=bytes((10, 1, 0, 10)), key=ASSOCIATION.key,
          spi=256, tail=b"") -> bytes:
    """A reply to it, as a home agent would make it."""
    message = bytes((3, code)) + (300).to_bytes(2, "big") + home_address + bytes((10, 0, 1, 2))
    message += identification.to_bytes(8, "big") + tail
    message += bytes((MOBILE_HOME_AUTHENTICATION, 20)) + spi.to_bytes(4, "big")
    return message + Association(spi, key).authenticator(message)


class Messages(unittest.TestCase):
    def test_a_request_has_the_layout_of_rfc_5944(self):
        message = request().emit(ASSOCIATION)
        self.assertEqual(message[:24].hex(), "012a012c" "0a01000a" "0a000102" "0a000802" "0123456789abcdef")
        self.assertEqual(message[24:32].hex(), "30000004c0ffee01")
        self.assertEqual(message[32:38].hex(), "201400000100")
        self.assertEqual(message[38:], ASSOCIATION.authenticator(message[:38]))

    def test_the_authenticator_is_hmac_md5_of_rfc_2202(self):
        known = Association(256, b"Jefe").authenticator(b"what do ya want for nothing?")
        self.assertEqual(known.hex(), "750c783e6ab0b503eaa86e310a5db738")

    def test_a_reply_to_the_request_is_read_with_its_extensions(self):
        read = Reply.parse(reply(1, tail=bytes((44, 2, 7, 8, GRE_KEY, 0, 0, 4, 1, 2, 3, 4))), request(), ASSOCIATION)
        self.assertEqual((read.code, read.lifetime), (1, 300))
        self.assertEqual(read.extensions, ((44, bytes((7, 8))), (GRE_KEY, bytes((1, 2, 3, 4)))))

    def test_what_is_no_reply_to_the_request_is_refused(self):
        good = reply()
        wrong = {
            "empty": b"", "cut": good[:-1], "unauthenticated": good[:20], "a request": b"\1" + good[1:],
            "another identification": reply(identification=0x0123456700000000),
            "another node": reply(home_address=bytes((10, 1, 0, 11))),
            "another key": reply(key=bytes(16)), "another SPI": reply(spi=257),
            "a changed code": bytes((3, 77)) + good[2:], "an endless extension": reply(tail=bytes((44, 200))),
            "an endless long extension": reply(tail=bytes((GRE_KEY, 0, 1, 0))),
            "half a long extension": good[:20] + bytes((GRE_KEY, 0, 0)),
        }
        Reply.parse(good, request(), ASSOCIATION)
        for name, message in wrong.items():
            with self.subTest(name):
                self.assertRaises(RegistrationError, Reply.parse, message, request(), ASSOCIATION)

    def test_a_timestamp_counts_from_1900_with_binary_fractions(self):
        self.assertEqual(timestamp(0), NTP_OFFSET << 32)
        self.assertEqual(timestamp(1.5), NTP_OFFSET + 1 << 32 | 1 << 31)


class Initramfs(unittest.TestCase):
    def test_a_module_names_what_it_needs(self):
        self.assertEqual(depends(b"\x7fELF\0license=GPL\0depends=tunnel4,ip_tunnel\0name=ipip\0"),
                         ["tunnel4", "ip_tunnel"])
        self.assertEqual(depends(b"\0depends=\0"), [])
        self.assertEqual(depends(b"no module"), [])

    @unittest.skipUnless(shutil.which("busybox"), "needs busybox")
    def test_busybox_unpacks_the_archive(self):
        files = {"a": (0o040755, b""), "a/odd": (0o100644, b"12345"), "a/empty": (0o100755, b""),
                 "long": (0o100600, bytes(range(256)) * 9)}
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["busybox", "cpio", "-i", "--quiet"], input=cpio(files), cwd=directory, check=True)
            for path, (mode, content) in files.items():
                found = Path(directory) / path
                self.assertEqual(found.stat().st_mode, mode)
                self.assertTrue(found.is_dir() or found.read_bytes() == content)


if __name__ == "__main__":
    unittest.main()
