"""Tests of how the MTU demo reads what others print: a number misread would pass or fail anything."""

import contextlib
import io
import unittest

import demo
from mtu import CASES, mtu_of_ping, pmtu_of_tracepath, received_of_ping, segment_sizes

TRACEPATH = """\
 1?: [LOCALHOST]                      pmtu 1500
 1:  192.0.2.1                                             0.061ms
 2:  10.0.1.2                                              0.243ms pmtu 1480
 2:  10.0.1.2                                              0.310ms pmtu 1260
 3:  10.1.0.10                                             0.512ms reached
     Resume: pmtu 1260 hops 3 back 3
"""
TOO_LONG = """\
PING 10.1.0.10 (10.1.0.10) 1233(1261) bytes of data.
From 10.0.1.2 icmp_seq=1 Frag needed and DF set (mtu = 1260)

--- 10.1.0.10 ping statistics ---
2 packets transmitted, 0 received, +1 errors, 100% packet loss, time 1001ms
"""
LOCALLY = "ping: local error: message too long, mtu=1260\n"
BUSYBOX = "3 packets transmitted, 2 packets received, 33% packet loss\n"
SYN = ("12:00:00.0 IP 10.1.0.10.5000 > 192.0.2.2.8080: Flags [S], seq 1, win 64240, options "
       "[mss 1220,sackOK,TS val 1 ecr 0,nop,wscale 7], length 0\n")


class Readers(unittest.TestCase):
    def test_tracepath_counts_only_when_it_reached_the_other_end(self):
        self.assertEqual(pmtu_of_tracepath(TRACEPATH), 1260)
        self.assertIsNone(pmtu_of_tracepath(TRACEPATH.replace("reached", "")))
        self.assertIsNone(pmtu_of_tracepath(""))
        self.assertIsNone(pmtu_of_tracepath(TRACEPATH, "!H"))
        self.assertEqual(pmtu_of_tracepath(TRACEPATH.replace("reached", "!H"), "!H"), 1260)

    def test_a_ping_that_is_too_long_says_the_mtu_from_afar_or_from_its_own_kernel(self):
        self.assertEqual(mtu_of_ping(TOO_LONG), 1260)
        self.assertEqual(mtu_of_ping(LOCALLY), 1260)
        self.assertEqual(mtu_of_ping(TOO_LONG.replace("1260)", "1480)") + LOCALLY), 1260)
        self.assertIsNone(mtu_of_ping("2 packets transmitted, 2 received"))

    def test_answers_are_counted_of_both_pings(self):
        self.assertEqual(received_of_ping(TOO_LONG), (2, 0))
        self.assertEqual(received_of_ping(BUSYBOX), (3, 2))
        self.assertEqual(received_of_ping("no route"), (0, 0))

    def test_the_segment_size_is_that_of_the_options(self):
        self.assertEqual(segment_sizes(SYN), [1220])
        self.assertEqual(segment_sizes(""), [])

    def test_each_encapsulation_leaves_what_its_headers_do_not_take(self):
        self.assertEqual({case.encap: case.mtu for case in CASES},
                         {"ip-in-ip": 1260, "minimal": 1268, "gre": 1256, "udp": 1248, "plain-udp": 1252})


class Arguments(unittest.TestCase):
    def test_the_first_demo_is_what_runs_without_a_word(self):
        options = demo.arguments([])
        self.assertEqual((options.what, options.ports, options.bytes, options.encap), ("roam", "af_packet", 200_000_000, None))
        self.assertEqual(demo.arguments(["hundred"]).bytes, 2_000_000)

    def test_options_that_do_not_go_with_a_demo_are_refused(self):
        for words in (["--nat-traversal", "challenge"], ["nat", "--encap", "gre"], ["mtu", "--keep"], ["--nodes", "3"],
                      ["hundred", "--nodes", "0"], ["hundred", "--nodes", "201"], ["--bytes", "0"],
                      ["hundred", "--nat-traversal", "both"], ["nat", "--keep"], ["moon"]):
            with self.subTest(words):
                with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as refused:
                    demo.arguments(words)
                self.assertEqual(refused.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
