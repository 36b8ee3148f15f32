"""Tests of the labs' plans: that each cable has two ends, and each hint a node."""

import ipaddress
import itertools
import tempfile
import tomllib
import unittest
from pathlib import Path

import agents
import interop
from agents import ENCAPSULATIONS, PORTS, Choices
from topologies import TOPOLOGIES, hundred

PLANS = (*TOPOLOGIES.values(), interop.INTEROP, hundred(1))
ALL_CHOICES = [Choices(ports, encap, nat_traversal, mss_clamp) for ports, encap, nat_traversal, mss_clamp in
               itertools.product(PORTS, ENCAPSULATIONS, (None, "rfc3519", "challenge"), (False, True))]


class Plans(unittest.TestCase):
    def each(self):
        """Every plan, in a sub-test."""
        for plan in PLANS:
            with self.subTest(plan.name, nodes=len(plan.nodes)):
                yield plan

    def test_each_cable_joins_two_nodes_by_interfaces_of_their_own(self):
        for plan in self.each():
            ends = [(end.node, end.interface) for cable in plan.cables for end in (cable.near, cable.far)]
            self.assertEqual(len(ends), len(set(ends)))
            self.assertLessEqual({node for node, _ in ends}, set(plan.nodes))
            self.assertLess(max(len(interface) for _, interface in ends), 16)

    def test_both_ends_of_a_cable_are_on_one_link(self):
        for plan in self.each():
            for cable in plan.cables:
                networks = {ipaddress.ip_interface(end.address).network for end in (cable.near, cable.far) if end.address}
                self.assertLessEqual(len(networks), 1, cable)

    def test_each_network_of_the_switch_has_a_port(self):
        for plan in self.each():
            ports = {end.interface for cable in plan.cables for end in (cable.near, cable.far) if end.node == "sw"}
            self.assertLessEqual(set(plan.networks), ports)
            self.assertLessEqual(set(plan.switch_ports), ports)
            self.assertLessEqual(set(plan.switch_ports.values()), {*plan.networks, *plan.bridges})

    def test_whoever_forwards_masquerades_or_serves_is_there(self):
        for plan in self.each():
            who = {*plan.routers, *plan.masquerades, *plan.routes, *plan.agents, *plan.mobile_nodes,
                   *(server.node for server in plan.dhcp)}
            self.assertLessEqual(who, set(plan.nodes))
            self.assertLessEqual(set(plan.masquerades), set(plan.routers))

    def test_each_program_has_a_file_that_is_toml_and_keys_that_only_root_reads(self):
        for plan in self.each():
            for choices in ALL_CHOICES[:: 17 if len(plan.nodes) > 50 else 1]:
                texts = plan.configs(Path("/run/lab"), choices)
                self.assertEqual(set(texts), {*plan.agents, *plan.mobile_nodes})
                for text in texts.values():
                    tomllib.loads(text)
            with tempfile.TemporaryDirectory() as directory:
                paths = agents.write(Path(directory), texts)
                self.assertEqual(set(paths), set(texts))
                keys = list(Path(directory).glob("keys/*.key"))
                self.assertTrue(keys)
                for key in keys:
                    self.assertEqual(key.stat().st_mode & 0o777, 0o600)
                self.assertEqual(len({key.read_text() for key in keys}), len(keys))

    def test_hints_name_what_is_there_and_pictures_fit_a_terminal(self):
        for plan in TOPOLOGIES.values():
            with self.subTest(plan.name):
                self.assertTrue(plan.hints)
                for command, _ in plan.hints:
                    _, verb, what, *_ = command.split()
                    self.assertIn(what, plan.networks if verb == "move" else plan.nodes, command)
                for line in plan.picture.splitlines():
                    self.assertLessEqual(len(line), 100, line)
                    self.assertEqual(line, line.rstrip())


if __name__ == "__main__":
    unittest.main()
