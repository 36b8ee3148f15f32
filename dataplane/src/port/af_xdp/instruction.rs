//! eBPF instructions, and an assembler that is just enough for one program: named
//! labels, jumps forward.

use std::collections::HashMap;
use std::ffi::c_int;
use std::hash::Hash;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(u8);

/// What functions return, and the verdict.
pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R5: Register = Register(5);
/// This one and those up to R9 survive calls.
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const R8: Register = Register(8);
pub(super) const R9: Register = Register(9);
/// The end of the stack frame.
pub(super) const FRAME: Register = Register(10);

/// How much memory an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
}

/// What a jump compares. Registers are compared with 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    Equal,
    NotEqual,
    /// Any of these bits is set.
    AnyOf,
    Below,
    AtLeast,
    Above,
}

/// Functions of the kernel (`enum bpf_func_id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    MapLookup = 1,
    RedirectMap = 51,
}

/// One instruction: `struct bpf_insn` of `linux/bpf.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Classes, sources and operations (`linux/bpf.h`, `linux/bpf_common.h`).
const LD_IMM64: u8 = 0x18;
const LDX: u8 = 0x61;
const ST: u8 = 0x62;
const STX: u8 = 0x63;
const ALU32_TO_BE: u8 = 0xdc;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const X: u8 = 0x08;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// `BPF_PSEUDO_MAP_FD`: the immediate is a map's descriptor.
const MAP_FD: Register = Register(1);

fn instruction(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Instruction {
    let registers =
        if cfg!(target_endian = "little") { from.0 << 4 | to.0 } else { to.0 << 4 | from.0 };
    Instruction { code, registers, offset, immediate }
}

/// Why a program cannot be assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a jump leads nowhere, back, or too far")]
pub(super) struct BadJump;

/// A program that is being written.
#[derive(Debug)]
pub(super) struct Assembler<L> {
    instructions: Vec<Instruction>,
    labels: HashMap<L, usize>,
    jumps: Vec<(usize, L)>,
}

impl<L: Copy + Eq + Hash> Assembler<L> {
    pub(super) fn new() -> Self {
        Assembler { instructions: Vec::new(), labels: HashMap::new(), jumps: Vec::new() }
    }

    fn add(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.instructions.push(instruction(code, to, from, offset, immediate));
    }

    /// Jumps to this label lead to the next instruction.
    pub(super) fn label(&mut self, label: L) {
        self.labels.insert(label, self.instructions.len());
    }

    /// `to = *(from + offset)`, zero-extended.
    pub(super) fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.add(LDX | size_bits(size), to, from, offset, 0);
    }

    /// `*(frame + offset) = from`, 32 bits.
    pub(super) fn store(&mut self, offset: i16, from: Register) {
        self.add(STX, FRAME, from, offset, 0);
    }

    /// `*(frame + offset) = value`, 32 bits.
    pub(super) fn store_value(&mut self, offset: i16, value: u32) {
        self.add(ST, FRAME, R0, offset, value.cast_signed());
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.add(ALU64 | 0xb0 | X, to, from, 0, 0);
    }

    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.add(ALU64 | 0xb0, to, R0, 0, value);
    }

    /// `to += value`.
    pub(super) fn add_value(&mut self, to: Register, value: i32) {
        self.add(ALU64, to, R0, 0, value);
    }

    /// `to += from`.
    pub(super) fn add_register(&mut self, to: Register, from: Register) {
        self.add(ALU64 | X, to, from, 0, 0);
    }

    pub(super) fn and(&mut self, to: Register, value: i32) {
        self.add(ALU64 | 0x50, to, R0, 0, value);
    }

    pub(super) fn shift_left(&mut self, to: Register, bits: i32) {
        self.add(ALU64 | 0x60, to, R0, 0, bits);
    }

    pub(super) fn shift_right(&mut self, to: Register, bits: i32) {
        self.add(ALU64 | 0x70, to, R0, 0, bits);
    }

    /// From network byte order, 16 bits.
    pub(super) fn host_order(&mut self, to: Register) {
        self.add(ALU32_TO_BE, to, R0, 0, 16);
    }

    /// `to = the address of a map`.
    pub(super) fn map(&mut self, to: Register, map: c_int) {
        self.add(LD_IMM64, to, MAP_FD, 0, map);
        self.add(0, R0, R0, 0, 0);
    }

    pub(super) fn call(&mut self, function: Function) {
        self.add(CALL, R0, R0, 0, function as i32);
    }

    pub(super) fn exit(&mut self) {
        self.add(EXIT, R0, R0, 0, 0);
    }

    pub(super) fn jump(&mut self, label: L) {
        self.jumps.push((self.instructions.len(), label));
        self.add(JMP, R0, R0, 0, 0);
    }

    /// Jumps if a register holds against a value, 32 bits.
    pub(super) fn jump_if(&mut self, left: Register, test: If, value: u32, label: L) {
        self.jumps.push((self.instructions.len(), label));
        self.add(JMP32 | test_bits(test), left, R0, 0, value.cast_signed());
    }

    /// Jumps if a register holds against another, 64 bits: also for pointers.
    pub(super) fn jump_if_register(&mut self, left: Register, test: If, right: Register, label: L) {
        self.jumps.push((self.instructions.len(), label));
        self.add(JMP | X | test_bits(test), left, right, 0, 0);
    }

    /// Jumps if a pointer is, or is not, null.
    pub(super) fn jump_if_null(&mut self, pointer: Register, is: bool, label: L) {
        self.jumps.push((self.instructions.len(), label));
        let test = if is { If::Equal } else { If::NotEqual };
        self.add(JMP | test_bits(test), pointer, R0, 0, 0);
    }

    /// The program.
    ///
    /// # Errors
    /// A label is missing, or is not behind all jumps to it: so that every program
    /// ends.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>, BadJump> {
        for (at, label) in self.jumps {
            let target = self.labels.get(&label).ok_or(BadJump)?;
            let distance = target.checked_sub(at + 1).ok_or(BadJump)?;
            let jump = self.instructions.get_mut(at).ok_or(BadJump)?;
            jump.offset = i16::try_from(distance).map_err(|_| BadJump)?;
        }
        Ok(self.instructions)
    }
}

const fn size_bits(size: Size) -> u8 {
    match size {
        Size::Word => 0x00,
        Size::Half => 0x08,
        Size::Byte => 0x10,
    }
}

const fn test_bits(test: If) -> u8 {
    match test {
        If::Equal => 0x10,
        If::Above => 0x20,
        If::AtLeast => 0x30,
        If::AnyOf => 0x40,
        If::NotEqual => 0x50,
        If::Below => 0xa0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_that_leads_back_or_nowhere_is_refused() {
        let mut back = Assembler::new();
        back.label("here");
        back.jump("here");
        assert_eq!(back.finish(), Err(BadJump));
        let mut nowhere = Assembler::new();
        nowhere.jump("there");
        assert_eq!(nowhere.finish(), Err(BadJump));
    }

    #[test]
    fn a_jump_counts_the_instructions_between() {
        let mut code = Assembler::new();
        code.jump_if(R3, If::Equal, 7, "end");
        code.map(R1, 5);
        code.label("end");
        code.exit();
        let code = code.finish().unwrap();
        assert_eq!((code[0].code, code[0].offset, code[0].immediate), (0x16, 2, 7));
        assert_eq!((code[1].code, code[1].immediate, code[3].code), (0x18, 5, 0x95));
    }
}
