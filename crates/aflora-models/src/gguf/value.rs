//! What the header of a GGUF file says of a key: a number, a text, or a list of either.

use super::cursor::Cursor;
use std::borrow::Cow;

/// A value of the header; texts and lists lie in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// A whole number.
    Integer(i128),
    /// A number with a fraction. Those of single precision are read as the shortest decimal number
    /// that they stand for: 0.00001 is written down as itself.
    Float(f64),
    Flag(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Numbers(Numbers<'a>),
}

/// Numbers one after the other, as they lie in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Numbers<'a> {
    kind: NumberKind,
    bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl NumberKind {
    /// By its number in the format.
    fn of(number: u32) -> Option<Self> {
        use NumberKind::*;
        Some(match number {
            0 => U8,
            1 => I8,
            2 => U16,
            3 => I16,
            4 => U32,
            5 => I32,
            6 => F32,
            7 => Bool,
            10 => U64,
            11 => I64,
            12 => F64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        use NumberKind::*;
        match self {
            U8 | I8 | Bool => 1,
            U16 | I16 => 2,
            U32 | I32 | F32 => 4,
            U64 | I64 | F64 => 8,
        }
    }

    /// The number that stands in bytes of its size.
    fn read(self, bytes: &[u8]) -> Value<'static> {
        use NumberKind::*;
        let mut word = [0; 8];
        word[..self.bytes()].copy_from_slice(&bytes[..self.bytes()]);
        let word = u64::from_le_bytes(word);
        match self {
            U8 | U16 | U32 | U64 => Value::Integer(word.into()),
            I8 => Value::Integer((word as i8).into()),
            I16 => Value::Integer((word as i16).into()),
            I32 => Value::Integer((word as i32).into()),
            I64 => Value::Integer((word as i64).into()),
            Bool => Value::Flag(word != 0),
            F32 => Value::Float(decimal(f32::from_bits(word as u32))),
            F64 => Value::Float(f64::from_bits(word)),
        }
    }
}

/// The number whose shortest decimal form is that of `x`.
pub(super) fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The format's numbers of texts and lists.
const TEXT: u32 = 8;
const LIST: u32 = 9;

impl<'a> Value<'a> {
    /// Reads a value: the number of its type, then itself.
    pub(super) fn read(file: &mut Cursor<'a>) -> Result<Self, String> {
        match file.u32()? {
            TEXT => Ok(Value::Text(file.text()?)),
            LIST => Self::list(file),
            number => {
                let kind = NumberKind::of(number).ok_or_else(|| unknown(number))?;
                Ok(kind.read(file.take(kind.bytes())?))
            }
        }
    }

    fn list(file: &mut Cursor<'a>) -> Result<Self, String> {
        let number = file.u32()?;
        if number == TEXT {
            // The length of a text is eight bytes at the least.
            let count = file.count(8)?;
            let texts = (0..count).map(|_| file.text()).collect::<Result<_, _>>()?;
            return Ok(Value::Texts(texts));
        }
        if number == LIST {
            return Err("it is a list of lists, which is not read".into());
        }
        let kind = NumberKind::of(number).ok_or_else(|| unknown(number))?;
        let count = file.count(kind.bytes())?;
        Ok(Value::Numbers(Numbers { kind, bytes: file.take(count * kind.bytes())? }))
    }

    /// What it is, for a message.
    pub(crate) fn what(&self) -> Cow<'static, str> {
        match self {
            Value::Integer(n) => n.to_string().into(),
            Value::Float(x) => x.to_string().into(),
            Value::Flag(flag) => flag.to_string().into(),
            Value::Text(_) => "a text".into(),
            Value::Texts(texts) => format!("a list of {} texts", texts.len()).into(),
            Value::Numbers(numbers) => format!("a list of {} numbers", numbers.len()).into(),
        }
    }
}

impl<'a> Numbers<'a> {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.kind.bytes()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Value<'static>> + 'a {
        self.bytes.chunks_exact(self.kind.bytes()).map(move |bytes| self.kind.read(bytes))
    }
}

fn unknown(number: u32) -> String {
    format!("it has the type {number}, which is none of the format's")
}
