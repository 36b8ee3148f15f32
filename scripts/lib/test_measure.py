"""Tests of the demo's arithmetic: a wrong outage would be worse than none."""

import unittest

from measure import Flow, Move, bins, read_line

MS = 1_000_000


def flow(times_ms, lost=()):
    """A flow of one probe per time, which arrives as it is sent unless it is lost."""
    made = Flow("test")
    for number, at in enumerate(times_ms):
        made.sent.append(at * MS)
        if number not in lost:
            made.arrived[number] = at * MS
            made.arrivals.append(at * MS)
    return made


class Gaps(unittest.TestCase):
    def test_a_steady_flow_has_gaps_of_its_interval_and_no_loss(self):
        steady = flow(range(100))
        self.assertEqual(steady.longest_gap(20 * MS, 80 * MS), MS)
        self.assertEqual(steady.lost(0, 100 * MS), 0)

    def test_lost_probes_make_the_gap_and_are_counted_where_they_were_sent(self):
        broken = flow(range(100), lost=range(40, 60))
        self.assertEqual(broken.longest_gap(20 * MS, 80 * MS), 21 * MS)
        self.assertEqual(broken.lost(20 * MS, 50 * MS), 10)
        self.assertEqual(broken.lost(50 * MS, 80 * MS), 10)

    def test_a_silence_across_the_border_of_the_window_counts_whole(self):
        broken = flow(range(100), lost=range(15, 30))
        self.assertEqual(broken.longest_gap(20 * MS, 80 * MS), 16 * MS)
        broken = flow(range(100), lost=range(70, 95))
        self.assertEqual(broken.longest_gap(20 * MS, 80 * MS), 26 * MS)

    def test_a_dead_flow_is_quiet_for_the_whole_window(self):
        dead = flow(range(100), lost=range(100))
        self.assertEqual(dead.longest_gap(20 * MS, 80 * MS), 60 * MS)
        dies = flow(range(100), lost=range(50, 100))
        self.assertEqual(dies.longest_gap(20 * MS, 80 * MS), 31 * MS)

    def test_a_move_costs_the_worse_gap_and_the_losses_of_both_directions(self):
        one, other = flow(range(100), lost=range(40, 60)), flow(range(100), lost=range(40, 45))
        self.assertEqual(Move("a", "b", 30 * MS, 90 * MS).cost([one, other], now=0), (21.0, 25))


class Lines(unittest.TestCase):
    def test_lines_go_to_the_flow_of_their_direction(self):
        out, back = Flow("out"), Flow("back")
        for line in ("s 0 100", "e 1 200 101", "r 0 90 110", "r 0 90 111"):
            read_line(line, out, back)
        self.assertEqual((out.sent, out.refused), ([100, 200], {1: 101}))
        self.assertEqual((back.arrived, back.arrivals, back.duplicates), ({0: 110}, [110], 1))
        for wrong in ("x 1 2", "s 5 300"):
            self.assertRaises(ValueError, read_line, wrong, out, back)


class Bins(unittest.TestCase):
    def test_samples_fall_into_their_bin_and_none_outside(self):
        samples = [(5, 1), (10, 2), (19, 4), (20, 8), (29, 16), (35, 32)]
        self.assertEqual(bins(samples, 10, 35, 10), [6, 24, 0])


if __name__ == "__main__":
    unittest.main()
