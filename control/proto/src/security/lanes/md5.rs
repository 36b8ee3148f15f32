//! MD5 (RFC 1321) of a block of each of sixteen messages, by AVX2.
//!
//! A vector has eight of them. Each step waits for the one before, and of two vectors the
//! one is worked on while the other waits.

use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast, u32x8};

/// Messages at once.
pub(super) const LANES: usize = 16;

/// A word of each lane.
pub(super) type Words = [u32; LANES];

/// A processor that can do it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vectors(V3);

impl Vectors {
    /// `None`: this one cannot.
    pub(super) fn detect() -> Option<Self> {
        V3::try_new().map(Vectors)
    }

    /// The states of MD5 behind another block of each lane (RFC 1321 §3.4).
    pub(super) fn compress(self, state: &[Words; 4], block: &[Words; 16]) -> [Words; 4] {
        self.0.vectorize(Compress { simd: self.0, state, block })
    }
}

struct Compress<'a> {
    simd: V3,
    state: &'a [Words; 4],
    block: &'a [Words; 16],
}

impl NullaryFnOnce for Compress<'_> {
    type Output = [Words; 4];

    #[inline(always)]
    fn call(self) -> [Words; 4] {
        let pair = |words: &Words| Pair { simd: self.simd, halves: cast(*words) };
        let state = self.state.each_ref().map(pair);
        compressed(state, self.block.each_ref().map(pair)).map(|pair| cast(pair.halves))
    }
}

/// A word of each lane, in two vectors.
#[derive(Clone, Copy)]
struct Pair {
    simd: V3,
    halves: [u32x8; 2],
}

impl Pair {
    #[inline(always)]
    fn with(self, other: Self, each: impl Fn(V3, u32x8, u32x8) -> u32x8) -> Self {
        let ([one, two], [other_one, other_two]) = (self.halves, other.halves);
        let halves = [each(self.simd, one, other_one), each(self.simd, two, other_two)];
        Pair { halves, ..self }
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self {
        Pair { halves: [self.simd.splat_u32x8(word); 2], ..self }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |simd, a, b| simd.wrapping_add_u32x8(a, b))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.with(other, |simd, a, b| simd.and_u32x8(a, b))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.with(other, |simd, a, b| simd.or_u32x8(a, b))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self.with(other, |simd, a, b| simd.xor_u32x8(a, b))
    }

    #[inline(always)]
    fn not(self) -> Self {
        self.with(self, |simd, a, _| simd.not_u32x8(a))
    }

    #[inline(always)]
    fn rotated<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        self.with(self, |simd, a, _| {
            simd.or_u32x8(simd.shl_const_u32x8::<LEFT>(a), simd.shr_const_u32x8::<RIGHT>(a))
        })
    }
}

#[inline(always)]
fn compressed(state: [Pair; 4], block: [Pair; 16]) -> [Pair; 4] {
    let [mut a, mut b, mut c, mut d] = state;
    macro_rules! step {
        ($a:ident, $mixed:expr, $b:ident, $at:expr, $word:expr, $left:literal, $right:literal) => {
            let sum = $a.add(block[$word & 15].add(a.splat(SINES[$at]))).add($mixed);
            $a = $b.add(sum.rotated::<$left, $right>());
        };
    }
    // Four steps; the words of the block go on by $by from $word.
    macro_rules! steps {
        ($mix:ident, $at:expr, $word:expr, $by:literal,
         $l0:literal $r0:literal, $l1:literal $r1:literal, $l2:literal $r2:literal, $l3:literal $r3:literal) => {
            step!(a, $mix(b, c, d), b, $at, $word, $l0, $r0);
            step!(d, $mix(a, b, c), a, $at + 1, $word + $by, $l1, $r1);
            step!(c, $mix(d, a, b), d, $at + 2, $word + 2 * $by, $l2, $r2);
            step!(b, $mix(c, d, a), c, $at + 3, $word + 3 * $by, $l3, $r3);
        };
    }
    steps!(f, 0, 0, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(f, 4, 4, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(f, 8, 8, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(f, 12, 12, 1, 7 25, 12 20, 17 15, 22 10);
    steps!(g, 16, 1, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(g, 20, 21, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(g, 24, 41, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(g, 28, 61, 5, 5 27, 9 23, 14 18, 20 12);
    steps!(h, 32, 5, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(h, 36, 17, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(h, 40, 29, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(h, 44, 41, 3, 4 28, 11 21, 16 16, 23 9);
    steps!(i, 48, 0, 7, 6 26, 10 22, 15 17, 21 11);
    steps!(i, 52, 28, 7, 6 26, 10 22, 15 17, 21 11);
    steps!(i, 56, 56, 7, 6 26, 10 22, 15 17, 21 11);
    steps!(i, 60, 84, 7, 6 26, 10 22, 15 17, 21 11);
    let [start_a, start_b, start_c, start_d] = state;
    [start_a.add(a), start_b.add(b), start_c.add(c), start_d.add(d)]
}

#[inline(always)]
fn f(b: Pair, c: Pair, d: Pair) -> Pair {
    d.xor(b.and(c.xor(d)))
}

#[inline(always)]
fn g(b: Pair, c: Pair, d: Pair) -> Pair {
    c.xor(d.and(b.xor(c)))
}

#[inline(always)]
fn h(b: Pair, c: Pair, d: Pair) -> Pair {
    b.xor(c).xor(d)
}

#[inline(always)]
fn i(b: Pair, c: Pair, d: Pair) -> Pair {
    c.xor(b.or(d.not()))
}

/// The sines of RFC 1321 §3.4: the whole part of 2^32 times |sin(step + 1)|.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];
