"""Tests that the demo's judge of captures can find a fault."""

import shutil
import struct
import tempfile
import unittest
from pathlib import Path

import captures


def packet(payload: bytes, tunnel: bool) -> bytes:
    """An Ethernet frame with `payload` at UDP port 434, in an IP-in-IP tunnel or not."""
    datagram = struct.pack("!HHHH", 434, 434, 8 + len(payload), 0) + payload
    for protocol in (17, 4)[:1 + tunnel]:
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, protocol, 0,
                             bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
        datagram = header + datagram
    return bytes(12) + b"\x08\x00" + datagram


REQUEST = bytes.fromhex("0102003c" "0a01000a" "0a000102" "0a000202" "ee00000000000000")


@unittest.skipUnless(shutil.which("tshark") and shutil.which("tcpdump"), "needs tshark and tcpdump")
class Judge(unittest.TestCase):
    def judge(self, *frames: bytes) -> tuple[int, int]:
        """(messages, malformed) of a capture with these frames."""
        with tempfile.TemporaryDirectory() as directory:
            with open(Path(directory) / "one.pcap", "wb") as file:
                file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
                for frame in frames:
                    file.write(struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame)
            return captures.judge([Path(directory) / "one.pcap"])

    def test_a_whole_request_is_found_and_is_not_malformed(self):
        self.assertEqual(self.judge(packet(REQUEST, False), packet(REQUEST, True)), (2, 0))

    def test_a_cut_request_is_malformed_in_a_tunnel_or_not(self):
        for cut in (1, 8, 23):
            for tunnel in (False, True):
                with self.subTest(cut=cut, tunnel=tunnel):
                    self.assertEqual(self.judge(packet(REQUEST[:cut], tunnel), packet(REQUEST, False)), (2, 1))


if __name__ == "__main__":
    unittest.main()
