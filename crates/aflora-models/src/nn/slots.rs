//! Keys and values of texts that are written side by side, each as long as it is.
//!
//! One preallocated buffer has a row for each slot. A text's tokens stand from its row's first place on,
//! whatever stands beside it, and a slot whose text is done is read into again from there.

use tch::Tensor;

/// The keys and values of one block.
#[derive(Debug)]
pub(crate) struct SlotKeys {
    /// Keys and values, `[slots, heads, capacity, head size]`; made at the first write.
    buffers: Option<[Tensor; 2]>,
    slots: i64,
    capacity: i64,
    reads: Reads,
}

/// What the next forward pass reads.
#[derive(Debug)]
pub(crate) enum Reads {
    /// The beginnings of texts, into these slots, `[texts]`.
    Prompts(Tensor),
    /// A token of each of the first slots, which goes to these places of theirs, `[slots, 1]`. No
    /// key behind the first `seen` of any is looked at.
    Next { positions: Tensor, seen: i64 },
}

impl Reads {
    fn shallow_clone(&self) -> Self {
        match self {
            Reads::Prompts(slots) => Reads::Prompts(slots.shallow_clone()),
            Reads::Next { positions, seen } => {
                Reads::Next { positions: positions.shallow_clone(), seen: *seen }
            }
        }
    }
}

impl SlotKeys {
    pub(crate) fn new(slots: i64, capacity: i64) -> Self {
        SlotKeys { buffers: None, slots, capacity, reads: Reads::Prompts(Tensor::new()) }
    }

    /// Says what the next forward pass reads.
    pub(crate) fn expect(&mut self, reads: &Reads) {
        self.reads = reads.shallow_clone();
    }

    /// Keeps keys and values, `[texts, heads, read, head size]`, and gives those that are seen.
    pub(super) fn extend(&mut self, new: [&Tensor; 2]) -> [Tensor; 2] {
        let size = new[0].size();
        let (heads, read, head) = (size[1], size[2], size[3]);
        let (slots, capacity) = (self.slots, self.capacity);
        let buffers = self.buffers.get_or_insert_with(|| {
            let like = (new[0].kind(), new[0].device());
            [(); 2].map(|()| Tensor::zeros([slots, heads, capacity, head], like))
        });
        match &self.reads {
            Reads::Prompts(slots) => {
                for (buffer, new) in buffers.iter().zip(new) {
                    let _ = buffer.narrow(2, 0, read).index_copy_(0, slots, new);
                    // What is not seen has no weight, but nothing times what is no number is none: an
                    // earlier text of the slot may have left such a value.
                    let _ = buffer.narrow(2, read, capacity - read).index_fill_(0, slots, 0.0);
                }
                new.map(Tensor::shallow_clone)
            }
            Reads::Next { positions, seen } => {
                let texts = positions.size()[0];
                let places =
                    positions.view([texts, 1, 1, 1]).expand([texts, heads, 1, head], false);
                let mut rows = buffers.each_ref().map(|buffer| buffer.narrow(0, 0, texts));
                for (rows, new) in rows.iter_mut().zip(new) {
                    let _ = rows.scatter_(2, &places, new);
                }
                rows.map(|rows| rows.narrow(2, 0, *seen))
            }
        }
    }

    /// Moves the first `used` places of these slots, `[any number]`, to the first slots.
    pub(crate) fn keep(&mut self, slots: &Tensor, used: i64) {
        for buffer in self.buffers.iter().flatten() {
            let used = buffer.narrow(2, 0, used);
            let kept = used.index_select(0, slots);
            used.narrow(0, 0, slots.size()[0]).copy_(&kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// `[texts, 1, read, 1]`.
    fn numbers(texts: i64, read: i64, value: f64) -> Tensor {
        Tensor::full([texts, 1, read, 1], value, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn nothing_of_a_text_is_left_for_the_next_in_its_slot() {
        let mut keys = SlotKeys::new(2, 6);
        keys.expect(&Reads::Prompts(Tensor::from_slice(&[0i64, 1])));
        let old = numbers(2, 5, f64::NAN);
        let _ = keys.extend([&old, &old]);
        keys.expect(&Reads::Prompts(Tensor::from_slice(&[1i64])));
        let new = numbers(1, 2, 1.0);
        let seen = keys.extend([&new, &new]);
        assert_eq!(seen[0].size(), [1, 1, 2, 1], "a prompt sees itself");

        let positions = Tensor::from_slice(&[5i64, 2]).unsqueeze(1);
        keys.expect(&Reads::Next { positions, seen: 6 });
        let next = numbers(2, 1, 2.0);
        let [_, values] = keys.extend([&next, &next]);
        let values = Vec::<f32>::try_from(values.get(1).flatten(0, -1)).unwrap();
        assert_eq!(values, [1.0, 1.0, 2.0, 0.0, 0.0, 0.0]);

        keys.keep(&Tensor::from_slice(&[1i64]), 3);
        let positions = Tensor::from_slice(&[3i64]).unsqueeze(1);
        keys.expect(&Reads::Next { positions, seen: 4 });
        let next = numbers(1, 1, 3.0);
        let [found, _] = keys.extend([&next, &next]);
        assert_eq!(Vec::<f32>::try_from(found.flatten(0, -1)).unwrap(), [1.0, 1.0, 2.0, 3.0]);
    }
}
