//! Calls of kernel functions (kfuncs) in programs. aya has none yet, so the object holds a stand-in for
//! the call, and the real one is put in before the object is loaded.

use aya_obj::btf::{Btf, BtfKind};

/// Class and operation of a call, `BPF_JMP | BPF_CALL` of include/uapi/linux/bpf.h.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the half byte of the source register.
const KFUNC: u8 = 2 << 4;
/// `BPF_ALU64 | BPF_MOV | BPF_K` into register 0, where a call leaves what it returns.
const RETURN: u8 = 0xb7;

/// Numbers of these kernel functions in the running kernel's BTF. The error is the name of one that it
/// does not have, as without any BTF.
pub(super) fn ids<const N: usize>(functions: [&'static str; N]) -> Result<[u32; N], &'static str> {
    let btf = Btf::from_sys_fs().map_err(|_no_btf| functions[0])?;
    let mut ids = [0; N];
    for (id, function) in ids.iter_mut().zip(functions) {
        *id = btf
            .id_by_type_name_kind(function, BtfKind::Func)
            .map_err(|_missing| function)?;
    }
    Ok(ids)
}

/// Turns every call of the helper `stand_in` into one of the kernel function `id`, or, without one, into
/// what it would return that failed. `object` must be 8-aligned. Says how many there were.
pub(super) fn put_in(object: &mut [u64], stand_in: u32, id: Option<u32>) -> usize {
    let mut count = 0;
    // Instructions are 8 bytes at a multiple of 8: operation, registers, offset (2 bytes), number.
    for instruction in object {
        let bytes = instruction.to_ne_bytes();
        if bytes[..4] != [CALL, 0, 0, 0] || bytes[4..] != stand_in.to_ne_bytes() {
            continue;
        }
        let (operation, registers, number) = match id {
            Some(id) => (CALL, KFUNC, id.to_ne_bytes()),
            None => (RETURN, 0, (-1_i32).to_ne_bytes()),
        };
        let mut changed = [operation, registers, 0, 0, 0, 0, 0, 0];
        changed[4..].copy_from_slice(&number);
        *instruction = u64::from_ne_bytes(changed);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::put_in;

    const STAND_IN: u32 = 0x6d74_7374;

    fn call(registers: u8, number: u32) -> u64 {
        let mut bytes = [0x85, registers, 0, 0, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&number.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn only_calls_of_the_stand_in_change() {
        let others = [call(0, 5), call(0x10, STAND_IN), u64::from(STAND_IN), 0];
        let mut object = others.to_vec();
        object.push(call(0, STAND_IN));
        assert_eq!(put_in(&mut object, STAND_IN, Some(65_760)), 1);
        assert_eq!(object[..4], others);
        assert_eq!(object[4], call(0x20, 65_760));
    }

    #[test]
    fn without_the_function_the_call_fails() {
        let mut object = [call(0, STAND_IN)];
        assert_eq!(put_in(&mut object, STAND_IN, None), 1);
        // r0 = -1
        assert_eq!(
            object[0].to_ne_bytes(),
            [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
        );
    }
}
