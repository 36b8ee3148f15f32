"""Tests of the conformance lists: what a tag is above, what is counted, what is refused."""

import unittest

import conformance
import rfc_text
from conformance import Entry, Rfc, Test

LIST = """\
rfc = 2003
title = "IP in IP"

[requirements]
"2003-3.1-a" = { level = "MUST NOT", role = "HA", text = "Nothing" }
"""
SOURCE = """\
/// What it does.
// Shows 2003-3.1-a, attack-7,
// attack-8.
#[test]
#[cfg(unix)]
fn a_sentence() {
    // Shows how it is done.
}

proptest! {
    // Shows 2003-3.2-a.
    #[test]
    fn another(seed in 0u8..9) {
    }
}
"""
TEXT = """\
1.  Introduction ....... 1

   The key words "MUST", "MUST NOT", "SHALL" and "SHOULD" are words.

3.1.  Headers

   One MUST do this.  It is good, e.g. For that.  The other
   SHOULD NOT be, and

Perkins                     Standards Track                    [Page 3]

RFC 2003                    IP in IP                       October 1996


   MUST NOT stay.

3.1.1.  Fields

   -  One SHALL be.

   -  Two are REQUIRED.
"""


def entry(name: str, level: str = "MUST", **more) -> Entry:
    return Entry(id=name, text="Something", level=level, role="HA", **more)


def indexed(*entries: Entry) -> dict[str, Entry]:
    return {one.id: one for one in entries}


TEST = Test("control/proto/tests/agent/home_agent.rs", "a_sentence")


class Lists(unittest.TestCase):
    def test_a_list_is_read_with_its_levels(self):
        rfc = conformance.read_rfc(LIST, "rfc2003.toml")
        self.assertEqual((rfc.number, rfc.title, len(rfc.entries)), (2003, "IP in IP", 1))
        self.assertTrue(rfc.entries[0].is_must)
        self.assertEqual(rfc.entries[0].section, "3.1-a")

    def test_each_slip_in_a_list_is_named(self):
        for old, new, said in (('"MUST NOT"', '"CAN"', "no level is called `CAN`"),
                               ("2003-3.1-a", "2004-3.1-a", "begin with `2003-`"), ('role = "HA"', 'rule = "HA"', "unknown key `rule`"),
                               ('role = "HA", ', "", "`role` is missing"),
                               ("text =", 'not_done = "x", not_applicable = "y", text =', "one of same_as")):
            with self.subTest(new):
                with self.assertRaises(ValueError) as refused:
                    conformance.read_rfc(LIST.replace(old, new), "rfc2003.toml")
                self.assertIn(said, str(refused.exception))
                self.assertIn("rfc2003.toml", str(refused.exception))


class Tags(unittest.TestCase):
    def found(self, source: str):
        return conformance.tags(source.splitlines(), "tests/a.rs")

    def test_a_tag_is_that_of_the_test_below_it_over_several_lines(self):
        found, problems = self.found(SOURCE)
        self.assertEqual(problems, [])
        self.assertEqual({tag: [test.name for test in tests] for tag, tests in found.items()},
                         {"2003-3.1-a": ["a_sentence"], "attack-7": ["a_sentence"], "attack-8": ["a_sentence"],
                          "2003-3.2-a": ["another"]})

    def test_a_tag_above_something_else_is_a_problem(self):
        for source in ("// Shows attack-1.\nfn helper() {\n", "// Shows attack-1.\nuse core;\n#[test]\nfn a() {\n",
                       "// Shows attack-1.\n", "#[test]\nfn a() {}\n// Shows attack-1.\nfn b() {\n"):
            with self.subTest(source):
                self.assertEqual(len(self.found(source)[1]), 1)

    def test_python_tests_have_tags_too(self):
        found, problems = self.found("class A:\n    # Shows attack-1.\n    def test_it(self):\n")
        self.assertEqual((list(found), problems), (["attack-1"], []))

    def test_the_link_names_file_and_test(self):
        self.assertEqual(TEST.link, "[`proto::agent::home_agent::a_sentence`](../control/proto/tests/agent/home_agent.rs)")


class Problems(unittest.TestCase):
    def of(self, *entries: Entry, found=None) -> list[str]:
        return conformance.problems_of(indexed(*entries), found or {})

    def test_what_has_a_test_or_a_reason_is_no_problem(self):
        shown = entry("1-1-a", tests=[TEST])
        self.assertEqual(self.of(shown, entry("1-1-b", not_done="later"), entry("1-1-c", same_as=("1-1-a",))), [])

    def test_neither_a_test_nor_a_reason_is_a_problem(self):
        self.assertIn("no test shows it", self.of(entry("1-1-a"))[0])

    def test_both_a_test_and_a_reason_are_a_problem(self):
        self.assertIn("take that out", self.of(entry("1-1-a", tests=[TEST], not_done="later"))[0])

    def test_a_tag_that_names_nothing_is_a_problem(self):
        self.assertIn("`1-2-a`, which is not listed", self.of(found={"1-2-a": [TEST]})[0])

    def test_the_same_as_nothing_or_as_another_that_says_so_is_a_problem(self):
        self.assertIn("not listed", self.of(entry("1-1-a", same_as=("1-9-a",)))[0])
        first, second = entry("1-1-a", same_as=("1-1-b",)), entry("1-1-b", same_as=("1-1-c",))
        self.assertIn("name that one", self.of(first, second, entry("1-1-c", tests=[TEST]))[0])


class Counts(unittest.TestCase):
    def test_what_does_not_apply_does_not_count_and_what_says_the_same_does(self):
        entries = [entry("1-1-a", tests=[TEST]), entry("1-1-b", not_done="later"), entry("1-1-c", not_applicable="other"),
                   entry("1-1-d", same_as=("1-1-a",)), entry("1-1-e", same_as=("1-1-a", "1-1-b")),
                   entry("1-1-f", same_as=("1-1-c",)), entry("1-1-g", "SHOULD NOT", tests=[TEST])]
        self.assertEqual(conformance.counts(Rfc(1, "One", entries), indexed(*entries)), ("2 of 4, 50 %", "1 of 1, 100 %", 2))

    def test_only_all_of_them_are_a_hundred_per_cent(self):
        self.assertEqual(conformance.share(199, 200), "199 of 200, 99 %")
        self.assertEqual(conformance.share(0, 0), "none")

    def test_the_document_says_why_where_there_is_no_test(self):
        entries = [entry("1-1-a", tests=[TEST]), entry("1-1-b", not_done="later"), entry("1-1-c", same_as=("1-1-b",))]
        text = conformance.conformance([Rfc(1, "One", entries)], indexed(*entries))
        for line in ("| [1](#rfc-1-one) One | 1 of 3, 33 % | none | 0 |", "| **not done**: later |", "| not done, see §1-b |"):
            self.assertIn(line, text)


class Texts(unittest.TestCase):
    def test_sentences_are_found_by_section_and_over_a_page_break(self):
        found = rfc_text.required(TEXT)
        self.assertEqual(rfc_text.ids(2003, found), ["2003-3.1-a", "2003-3.1-b", "2003-3.1.1-a", "2003-3.1.1-b"])
        self.assertEqual([one.level for one in found], ["MUST", "MUST NOT", "SHALL", "REQUIRED"])
        self.assertEqual(found[1].text, "The other SHOULD NOT be, and MUST NOT stay.")

    def test_after_z_comes_aa(self):
        self.assertEqual([rfc_text.letter(index) for index in (0, 25, 26, 27, 52)], ["a", "z", "aa", "ab", "ba"])


if __name__ == "__main__":
    unittest.main()
