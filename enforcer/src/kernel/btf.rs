//! Field offsets of the running kernel, read from its own BTF: what a C compiler's CO-RE would relocate.
//!
//! Format: the kernel's Documentation/bpf/btf.rst.

use std::path::Path;

use super::{KernelError, io};

const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// The kernel's types.
pub(super) struct Btf {
    data: Vec<u8>,
    /// Where each type's entry begins and its kind; the place is the type's id.
    types: Vec<(usize, u32)>,
    strings: usize,
}

impl Btf {
    /// The running kernel's.
    pub(super) fn of_this_kernel() -> Result<Self, KernelError> {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            return Err(KernelError::Unsuited(
                "this kernel carries no BTF (/sys/kernel/btf/vmlinux): use one built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are".into(),
            ));
        }
        let data = std::fs::read(path).map_err(io("read the kernel's BTF"))?;
        Self::parse(data).ok_or_else(|| {
            KernelError::Unsuited("the kernel's BTF cannot be read: its format is not known".into())
        })
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let at = |place: usize| word(&data, place);
        let (header, type_offset, type_bytes, string_offset) = (at(4)?, at(8)?, at(12)?, at(16)?);
        let mut place = header.checked_add(type_offset)?;
        let end = place.checked_add(type_bytes)?;
        let mut types = vec![(0, 0)];
        while place < end {
            let info = u32::try_from(at(place + 4)?).ok()?;
            let (kind, members) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            types.push((place, kind));
            place += 12
                + match kind {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    STRUCT | UNION | 15 | 19 => 12 * members,
                    6 | 13 => 8 * members,
                    _ => 0,
                };
        }
        let strings = header.checked_add(string_offset)?;
        Some(Self {
            data,
            types,
            strings,
        })
    }

    /// Whether the kernel has a struct.
    pub(super) fn has(&self, structure: &str) -> bool {
        let mut all = 1..self.types.len();
        all.any(|id| self.types[id].1 == STRUCT && self.name_of(id) == structure.as_bytes())
    }

    /// The byte offset of a member of a struct.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Result<u32, KernelError> {
        let found = (1..self.types.len())
            .filter(|id| self.types[*id].1 == STRUCT && self.name_of(*id) == structure.as_bytes())
            .find_map(|id| self.member(id, member.as_bytes(), 0));
        found
            .and_then(|offset| u32::try_from(offset).ok())
            .ok_or_else(|| {
                KernelError::Unsuited(format!(
                    "this kernel's {structure} has no {member}: its structures are not known"
                ))
            })
    }

    /// Looks into anonymous structs and unions as well; `depth` bounds that.
    fn member(&self, id: usize, wanted: &[u8], depth: u32) -> Option<usize> {
        let (place, kind) = *self.types.get(id)?;
        if !matches!(kind, STRUCT | UNION) || depth > 8 {
            return None;
        }
        let info = word(&self.data, place + 4)?;
        (0..info & 0xffff).find_map(|n| {
            let at = place + 12 + 12 * n;
            let (name, of, mut bits) = (
                word(&self.data, at)?,
                word(&self.data, at + 4)?,
                word(&self.data, at + 8)?,
            );
            if info >> 31 == 1 {
                // A struct with bit fields keeps their size in the top byte.
                bits &= 0x00ff_ffff;
            }
            let name = self.text(name);
            if name == wanted {
                return Some(bits / 8);
            }
            if name.is_empty() {
                Some(bits / 8 + self.member(of, wanted, depth + 1)?)
            } else {
                None
            }
        })
    }

    fn name_of(&self, id: usize) -> &[u8] {
        word(&self.data, self.types[id].0).map_or(&[], |offset| self.text(offset))
    }

    fn text(&self, offset: usize) -> &[u8] {
        let bytes = self.data.get(self.strings + offset..).unwrap_or_default();
        bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

fn word(data: &[u8], place: usize) -> Option<usize> {
    let bytes = data.get(place..place.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_names_the_offsets_that_are_needed() {
        let btf = Btf::of_this_kernel().expect("a kernel with BTF");
        assert!(
            btf.offset("task_struct", "group_leader")
                .expect("an offset")
                > 0
        );
        assert!(
            btf.offset("task_struct", "start_boottime")
                .expect("an offset")
                > 0
        );
        assert!(btf.offset("task_struct", "no_such_member").is_err());
        assert!(btf.has("task_struct") && !btf.has("no_such_struct"));
    }

    #[test]
    fn torn_data_is_no_btf_and_does_not_panic() {
        assert!(Btf::parse(vec![0; 10]).is_none());
        let mut data = vec![0; 64];
        data[4] = 24;
        data[12] = 200;
        assert!(Btf::parse(data).is_none());
    }
}
