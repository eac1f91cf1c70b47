//! Layers that the files of a document are of, for a document that lists a path once for each layer that has it.

/// More than an image has: 127 (overlayfs).
const MAX: usize = 256;

/// Layers by number, from 1; 0 is an unknown one.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// In the order in which files named them.
    seen: Vec<Box<str>>,
    /// The number that was given last.
    last: u16,
    /// The image's, the base first.
    order: Vec<Box<str>>,
}

impl Layers {
    /// The number of a layer that a file names.
    pub(super) fn number(&mut self, layer: &str) -> u16 {
        let is = |number: u16| self.name(number) == Some(layer);
        if layer.is_empty() || is(self.last) {
            return if layer.is_empty() { 0 } else { self.last };
        }
        let known = self.seen.iter().position(|known| **known == *layer);
        if known.is_none() && self.seen.len() < MAX {
            self.seen.push(layer.into());
        }
        let place = known.unwrap_or(self.seen.len() - 1);
        self.last = match self.seen.get(place) {
            Some(known) if **known == *layer => u16::try_from(place + 1).unwrap_or(0),
            _ => 0,
        };
        self.last
    }

    fn name(&self, number: u16) -> Option<&str> {
        self.seen.get(usize::from(number).checked_sub(1)?).map(|name| &**name)
    }

    /// Adds the image's next layer above those before.
    pub(super) fn push(&mut self, layer: &str) {
        if self.order.len() < MAX {
            self.order.push(layer.into());
        }
    }

    /// The uppermost of the layers of one path; `None` when that is not known.
    pub(super) fn last(&self, numbers: impl Iterator<Item = u16>) -> Option<u16> {
        let mut last = None;
        for number in numbers {
            let name = self.name(number)?;
            let place = self.order.iter().rposition(|layer| **layer == *name)?;
            last = last.max(Some((place, number)));
        }
        last.map(|(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_layer() {
        let mut layers = Layers::default();
        let numbers = ["b", "a", "a", "b", "", "x", "a"].map(|layer| layers.number(layer));
        assert_eq!(numbers, [1, 2, 2, 1, 0, 3, 2]);
        for layer in ["a", "b", "c"] {
            layers.push(layer);
        }
        for (of_path, last) in [
            (&[1, 2][..], Some(1)),
            (&[2, 1], Some(1)),
            (&[2, 2], Some(2)),
            (&[1, 0], None),
            (&[1, 3], None),
            (&[], None),
        ] {
            assert_eq!(layers.last(of_path.iter().copied()), last, "{of_path:?}");
        }
        // One that stands twice is where it stands last.
        layers.push("a");
        assert_eq!(layers.last([1, 2].into_iter()), Some(2));
        let many: Vec<_> = (0..MAX + 9).map(|n| layers.number(&format!("l{n}"))).collect();
        assert_eq!(many.last(), Some(&0));
        assert_eq!(layers.number("a"), 2);
    }
}
