//! Cuts a kernel's BTF down to the structures of the table of kernel members, for the fixtures in `tests/btf`.
//!
//! `cargo run --example trim-btf -- /sys/kernel/btf/vmlinux agent/tests/btf/6.18.btf`
//!
//! What is left is valid BTF: every structure of the table with all its members, and the structures that the table's
//! paths or anonymous members lead into by value. Members of any other type become `void *`.

use std::collections::HashMap;

use anyhow::Context;
use muster::sensor::btf::{Btf, Type, kind};
use muster_common::layout::FIELDS;

#[derive(Default)]
struct Output {
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Output {
    fn string(&mut self, text: &[u8]) -> anyhow::Result<u32> {
        if let Some(at) = self.known.get(text) {
            return Ok(*at);
        }
        let at = u32::try_from(self.strings.len())?;
        self.strings.extend_from_slice(text);
        self.strings.push(0);
        self.known.insert(text.to_vec(), at);
        Ok(at)
    }

    fn words(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.types.extend_from_slice(&word.to_ne_bytes()));
    }

    /// Writes the type and, before it, what its members hold by value. `named`: first names of the paths to descend.
    fn aggregate(&mut self, btf: &Btf<'_>, ty: &Type, paths: &[&str]) -> anyhow::Result<u32> {
        let mut members = Vec::new();
        for member in btf.members(ty) {
            let inner: Vec<&str> = if member.name.is_empty() {
                paths.to_vec()
            } else {
                let split = paths.iter().filter_map(|path| path.split_once('.'));
                split.filter(|(first, _)| first.as_bytes() == member.name).map(|(_, rest)| rest).collect()
            };
            let target = btf.peel(member.type_id)?.filter(Type::is_aggregate);
            let id = match target {
                Some(target) if !inner.is_empty() => self.aggregate(btf, &target, &inner)?,
                _ => 1,
            };
            let place = if ty.flag { member.bits << 24 | member.bit_offset } else { member.bit_offset };
            members.push([self.string(member.name)?, id, place]);
        }
        let name = self.string(btf.name(ty))?;
        let info = u32::from(ty.flag) << 31 | ty.kind << 24 | ty.count;
        self.words(&[name, info, ty.size_or_type]);
        members.iter().for_each(|member| self.words(member));
        self.count += 1;
        Ok(self.count)
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(from), Some(to)) = (args.next(), args.next()) else {
        anyhow::bail!("expected two arguments: the BTF to read and the file to write");
    };
    let bytes = std::fs::read(&from).with_context(|| from.clone())?;
    let btf = Btf::parse(&bytes).with_context(|| from.clone())?;
    let mut output = Output::default();
    output.string(b"")?;
    output.words(&[0, kind::PTR << 24, 0]);
    output.count = 1;
    let mut done = Vec::new();
    for field in FIELDS {
        if done.contains(&field.structure) {
            continue;
        }
        done.push(field.structure);
        let structure = match btf.structure(field.structure) {
            None if field.optional => continue,
            found => found.with_context(|| format!("no struct {}", field.structure))?,
        };
        let paths: Vec<&str> =
            FIELDS.iter().filter(|f| f.structure == field.structure).map(|f| f.member).collect();
        output.aggregate(&btf, &structure, &paths)?;
    }
    let (types, strings) = (u32::try_from(output.types.len())?, u32::try_from(output.strings.len())?);
    let mut file = Vec::from(0xeb9f_u16.to_ne_bytes());
    file.extend_from_slice(&[1, 0]);
    for word in [24, 0, types, types, strings] {
        file.extend_from_slice(&u32::to_ne_bytes(word));
    }
    file.extend_from_slice(&output.types);
    file.extend_from_slice(&output.strings);
    std::fs::write(&to, &file).with_context(|| to.clone())?;
    println!(
        "{from}: {} bytes, {} types -> {to}: {} bytes, {} types",
        bytes.len(),
        btf.len(),
        file.len(),
        output.count
    );
    Ok(())
}
