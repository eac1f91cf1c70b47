//! Reading the rows of one SQLite table, and nothing else ("Database File Format", sqlite.org/fileformat2.html; the
//! numbers in brackets are its sections).
//!
//! Only tables are read, never indexes, and the file is taken as it is: no journal and no write-ahead log is applied. Every
//! page is visited at most once, so no loop of pages ends nowhere.

use super::super::{Fault, Position};

/// Deepest b-tree; one with more than 2³¹ pages would have fewer.
const MAX_DEPTH: usize = 20;
/// Largest row. The header of a package with a hundred thousand files has some 10 MB.
const MAX_ROW: usize = 64 << 20;
/// Columns of a row that are read.
const MAX_COLUMNS: usize = 16;

/// A value of a row. What the table of rpm's does not have is not told apart.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
    Other,
}

/// A database file.
pub(super) struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Bytes of a page that hold content: the end may be reserved [1.3.4].
    usable: usize,
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|b| usize::from(u16::from_be_bytes(*b)))
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

/// A number of one to nine bytes [1.6].
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for n in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if n == 8 {
            return Some(number << 8 | u64::from(byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

impl<'a> Database<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Fault> {
        let wrong = |at, reason: String| Err((Position::Byte(at), reason));
        if !bytes.starts_with(b"SQLite format 3\0") {
            return wrong(0, "expected a database of SQLite 3".to_owned());
        }
        let (Some(size), Some(reserved), Some(encoding)) = (be16(bytes, 16), bytes.get(20), be32(bytes, 56))
        else {
            return wrong(bytes.len(), "the header of 100 bytes is cut".to_owned());
        };
        let page_size = if size == 1 { 65_536 } else { size };
        if !page_size.is_power_of_two() || page_size < 512 {
            return wrong(16, format!("expected a page size from 512 to 65,536, found {page_size}"));
        }
        if encoding != 1 {
            return wrong(56, format!("expected texts in UTF-8 (1), found {encoding}"));
        }
        let usable = page_size - usize::from(*reserved);
        if usable < 480 {
            return wrong(20, format!("expected at least 480 usable bytes in a page, found {usable}"));
        }
        Ok(Self { bytes, page_size, usable })
    }

    fn pages(&self) -> usize {
        self.bytes.len() / self.page_size
    }

    /// A page, from 1, and where it starts in the file.
    fn page(&self, number: usize) -> Result<(&'a [u8], usize), Fault> {
        let start = number.checked_sub(1).and_then(|n| n.checked_mul(self.page_size));
        let page = start.and_then(|start| Some((self.bytes.get(start..)?.get(..self.page_size)?, start)));
        page.ok_or_else(|| {
            (Position::Byte(self.bytes.len()), format!("page {number} of {} is not there", self.pages()))
        })
    }

    /// First page of a table, by the schema [2.6].
    pub(super) fn table(&self, name: &str) -> Result<usize, Fault> {
        let mut root = None;
        self.rows(1, |_, values| {
            if let [Value::Text(b"table"), Value::Text(found), _, Value::Integer(page), ..] = values
                && *found == name.as_bytes()
            {
                root = usize::try_from(*page).ok();
            }
        })?;
        root.ok_or_else(|| (Position::File, format!("no table {name}")))
    }

    /// Every row of a table.
    pub(super) fn rows(&self, root: usize, mut each: impl FnMut(i64, &[Value<'_>])) -> Result<(), Fault> {
        let mut seen = vec![false; self.pages()];
        let mut todo = vec![(root, 0)];
        while let Some((number, depth)) = todo.pop() {
            let (page, start) = self.page(number)?;
            let at = |offset: usize, reason: String| (Position::Byte(start + offset), reason);
            self.visit(&mut seen, number, start)?;
            // The first page begins with the file's header [1.3].
            let head = if number == 1 { 100 } else { 0 };
            let (Some(kind), Some(cells)) = (page.get(head), be16(page, head + 3)) else {
                return Err(at(head, "a page without header".to_owned()));
            };
            let cell = |n: usize, head_size: usize| {
                be16(page, head + head_size + 2 * n).filter(|cell| *cell < self.usable)
            };
            let cut = |offset: usize| at(offset, "a cell that is cut".to_owned());
            match kind {
                // Interior page of a table [1.6].
                5 => {
                    if depth >= MAX_DEPTH {
                        return Err(at(head, format!("a tree deeper than {MAX_DEPTH}")));
                    }
                    let last = be32(page, head + 8).ok_or_else(|| cut(head + 8))?;
                    todo.push((last, depth + 1));
                    for n in (0..cells).rev() {
                        let cell = cell(n, 12).ok_or_else(|| cut(head))?;
                        let child = be32(page, cell).ok_or_else(|| cut(cell))?;
                        todo.push((child, depth + 1));
                    }
                    // No more can wait than there are pages.
                    if todo.len() > self.pages() + 1 {
                        return Err(at(head, "more children than the file has pages".to_owned()));
                    }
                }
                // Leaf of a table.
                13 => {
                    for n in 0..cells {
                        let mut offset = cell(n, 8).ok_or_else(|| cut(head))?;
                        let begin = offset;
                        let page = &page[..self.usable];
                        let size = varint(page, &mut offset).and_then(|size| usize::try_from(size).ok());
                        let row = varint(page, &mut offset).map(u64::cast_signed);
                        let (Some(size), Some(row)) = (size, row) else { return Err(cut(begin)) };
                        if size > MAX_ROW {
                            return Err(at(
                                begin,
                                format!("expected a row of at most {MAX_ROW} bytes, found {size}"),
                            ));
                        }
                        let payload = self.payload(page, offset, size, start, &mut seen)?;
                        let values =
                            record(&payload).ok_or_else(|| at(begin, "a row that is cut".to_owned()))?;
                        each(row, &values);
                    }
                }
                other => {
                    return Err(at(head, format!("expected a page of a table (5 or 13), found {other}")));
                }
            }
        }
        Ok(())
    }

    /// Notes that a page was visited: a second time is a loop.
    fn visit(&self, seen: &mut [bool], number: usize, start: usize) -> Result<(), Fault> {
        match number.checked_sub(1).and_then(|n| seen.get_mut(n)) {
            Some(seen) if !*seen => {
                *seen = true;
                Ok(())
            }
            _ => Err((Position::Byte(start), format!("page {number} is used twice"))),
        }
    }

    /// The content of a cell, which may go on in other pages [1.6, "cell payload overflow pages"].
    fn payload<'p>(
        &self,
        page: &'p [u8],
        offset: usize,
        size: usize,
        start: usize,
        seen: &mut [bool],
    ) -> Result<std::borrow::Cow<'p, [u8]>, Fault> {
        let cut = || (Position::Byte(start + offset), format!("a row of {size} bytes is cut"));
        let most = self.usable - 35;
        if size <= most {
            return page.get(offset..offset + size).map(Into::into).ok_or_else(cut);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wish = least + (size - least) % (self.usable - 4);
        let local = if wish <= most { wish } else { least };
        let mut payload = page.get(offset..offset + local).ok_or_else(cut)?.to_vec();
        let mut next = be32(page, offset + local).ok_or_else(cut)?;
        while payload.len() < size {
            let (page, start) = self.page(next)?;
            self.visit(seen, next, start)?;
            let take = (size - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(&page[4..4 + take]);
            next = be32(page, 0).ok_or_else(cut)?;
        }
        Ok(payload.into())
    }
}

/// The values of a row [2.1].
fn record(payload: &[u8]) -> Option<Vec<Value<'_>>> {
    let mut at = 0;
    let head = usize::try_from(varint(payload, &mut at)?).ok()?;
    let types = payload.get(..head)?;
    let mut data = head;
    let mut values = Vec::new();
    while at < head && values.len() < MAX_COLUMNS {
        let kind = varint(types, &mut at)?;
        let size = match kind {
            0 | 8 | 9 | 10 | 11 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = payload.get(data..data.checked_add(size)?)?;
        data += size;
        values.push(match kind {
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => {
                let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
                let begin = if negative { -1 } else { 0 };
                Value::Integer(bytes.iter().fold(begin, |n: i64, b| n << 8 | i64::from(*b)))
            }
            12.. if kind.is_multiple_of(2) => Value::Blob(bytes),
            13.. => Value::Text(bytes),
            _ => Value::Other,
        });
    }
    Some(values)
}
