//! A GGUF file, version 3, written: the header, then a tensor after the other.

use super::header::{ALIGNMENT, MAGIC};
use super::precision::Precision;
use super::quantise::quantise;
use std::io::{self, Write};
use tch::Tensor;

/// A value of the header.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A value as it lies in another file: the number of its type, and itself.
    Raw(Vec<u8>),
}

/// The header's numbers of types.
const LIST: u32 = 9;
const TEXT: u32 = 8;

impl Written {
    fn write(&self, header: &mut Vec<u8>) {
        fn numbers<const N: usize>(header: &mut Vec<u8>, of: u32, list: &[[u8; N]]) {
            header.extend(LIST.to_le_bytes());
            header.extend(of.to_le_bytes());
            header.extend((list.len() as u64).to_le_bytes());
            header.extend(list.concat());
        }
        let mut number = |kind: u32, bytes: &[u8]| {
            header.extend(kind.to_le_bytes());
            header.extend(bytes);
        };
        match self {
            Written::U32(n) => number(4, &n.to_le_bytes()),
            Written::F32(x) => number(6, &x.to_le_bytes()),
            Written::Flag(flag) => number(7, &[u8::from(*flag)]),
            Written::Text(value) => {
                number(TEXT, &[]);
                text(header, value);
            }
            Written::Texts(list) => {
                numbers::<0>(header, TEXT, &vec![[]; list.len()]);
                list.iter().for_each(|value| text(header, value));
            }
            Written::I32s(list) => {
                numbers(header, 5, &list.iter().map(|n| n.to_le_bytes()).collect::<Vec<_>>());
            }
            Written::F32s(list) => {
                numbers(header, 6, &list.iter().map(|x| x.to_le_bytes()).collect::<Vec<_>>());
            }
            Written::Raw(bytes) => header.extend(bytes),
        }
    }
}

fn text(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

/// A file to be written.
#[derive(Debug)]
pub struct GgufFile {
    pub(crate) keys: Vec<(String, Written)>,
    pub(crate) tensors: Vec<(String, Tensor)>,
    pub(crate) precision: Precision,
}

impl GgufFile {
    /// Writes the file.
    ///
    /// # Errors
    /// `file` cannot be written.
    pub fn write(&self, file: &mut dyn Write) -> io::Result<()> {
        let formats: Vec<Precision> =
            self.tensors.iter().map(|(_, tensor)| self.precision.of(&tensor.size())).collect();
        let aligned = |bytes: usize| bytes.div_ceil(ALIGNMENT.1) * ALIGNMENT.1;
        let mut keys = self.keys.clone();
        keys.push(("general.file_type".into(), Written::U32(self.precision.numbers()[1])));
        if formats.contains(&Precision::Q8_0) {
            // Of the blocks' layout.
            keys.push(("general.quantization_version".into(), Written::U32(2)));
        }
        let mut header = MAGIC.to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((keys.len() as u64).to_le_bytes());
        for (key, value) in &keys {
            text(&mut header, key);
            value.write(&mut header);
        }
        let mut offset = 0;
        for ((name, tensor), format) in self.tensors.iter().zip(&formats) {
            text(&mut header, name);
            header.extend((tensor.dim() as u32).to_le_bytes());
            for n in tensor.size().iter().rev() {
                header.extend((*n as u64).to_le_bytes());
            }
            header.extend(format.numbers()[0].to_le_bytes());
            header.extend((offset as u64).to_le_bytes());
            offset += aligned(format.bytes(tensor.numel()));
        }
        header.resize(aligned(header.len()), 0);
        file.write_all(&header)?;
        for ((_, tensor), format) in self.tensors.iter().zip(formats) {
            let mut data = quantise(tensor, format).map_err(io::Error::other)?;
            data.resize(aligned(data.len()), 0);
            file.write_all(&data)?;
        }
        Ok(())
    }
}
