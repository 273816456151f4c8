//! The tensors of a PyTorch file (`pytorch_model.bin`), without running what it says.
//!
//! Such a file holds a *pickle*: a program for a small stack machine that may call any Python
//! function. This reads the few instructions that a state dict needs and knows four functions,
//! those that make tensors and ordered dicts. Whatever else a pickle asks for is refused by
//! name; nothing is ever called.
//!
//! Two layouts are read: the zip archive of torch ≥ 1.6 (`data.pkl`, and each storage in a file
//! of its own, not compressed), and the stream of pickles before it, in which many older
//! checkpoints on the hub still lie.

use super::checkpoint::Place;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::rc::Rc;
use tch::Kind;

type Outcome<T> = Result<T, String>;

/// The tensors of the state dict in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Outcome<BTreeMap<String, Place>> {
    let (state, storages) =
        if bytes.starts_with(b"PK\x03\x04") { read_archive(bytes)? } else { read_stream(bytes)? };
    let Value::Dict(items) = state else {
        return Err("it holds no dict of tensors by name".into());
    };
    let mut places = BTreeMap::new();
    for (name, value) in items.borrow().iter() {
        let (Value::Text(name), Value::Tensor(tensor)) = (name, value) else {
            return Err(format!(
                "it holds {} by {}, not a tensor by name",
                value.what(),
                name.what()
            ));
        };
        places.insert(name.to_string(), place(name, tensor, &storages)?);
    }
    Ok(places)
}

/// Bytes from the start of the file, and bytes of a storage.
type Storages = HashMap<String, (usize, usize)>;

fn place(name: &str, tensor: &TensorValue, storages: &Storages) -> Outcome<Place> {
    let TensorValue { storage, offset, shape, stride } = tensor;
    let &(start, bytes) = storages
        .get(&*storage.key)
        .ok_or_else(|| format!("the storage {} of `{name}` is not in it", storage.key))?;
    let size = storage.kind.elt_size_in_bytes();
    let wrong = || format!("`{name}` reads past its storage of {bytes} bytes");
    if shape.len() != stride.len() || shape.iter().chain(stride).any(|&n| n < 0) {
        return Err(format!("`{name}` has shape {shape:?} with strides {stride:?}"));
    }
    let mut elements = usize::from(!shape.contains(&0));
    for (&n, &step) in shape.iter().zip(stride) {
        let reach = (n - 1).max(0).checked_mul(step).ok_or_else(wrong)?;
        elements = elements.checked_add(reach as usize).ok_or_else(wrong)?;
    }
    let skipped = usize::try_from(*offset).map_err(|_| wrong())?;
    let end = skipped.checked_add(elements).and_then(|n| n.checked_mul(size)).ok_or_else(wrong)?;
    if end > bytes {
        return Err(wrong());
    }
    Ok(Place {
        shape: shape.clone(),
        stride: stride.clone(),
        kind: storage.kind,
        offset: start + skipped * size,
    })
}

fn read_archive(bytes: &[u8]) -> Outcome<(Value, Storages)> {
    let words = |e: zip::result::ZipError| e.to_string();
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(words)?;
    let mut storages = HashMap::new();
    let mut program = None;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(words)?;
        let name = entry.name().map_err(words)?.into_owned();
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(format!("`{name}` in it is compressed; PyTorch writes none such"));
        }
        let start = entry.data_start().ok_or("the archive's directory is damaged")? as usize;
        let length = entry.size() as usize;
        let range = start.checked_add(length).and_then(|end| bytes.get(start..end));
        let data = range.ok_or_else(|| format!("`{name}` in it ends after the file"))?;
        // Everything lies in one folder, whatever its name.
        match name.split_once('/').map_or(&*name, |(_, rest)| rest) {
            "data.pkl" => program = Some(data),
            "byteorder" if data != b"little" => {
                return Err("its numbers are big-endian, which is not built".into())
            }
            other => {
                if let Some(key) = other.strip_prefix("data/") {
                    storages.insert(key.to_string(), (start, length));
                }
            }
        }
    }
    let program = program.ok_or("the archive has no data.pkl")?;
    Ok((Machine::new(program).run()?, storages))
}

/// The first number of a file of torch < 1.6, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn read_stream(bytes: &[u8]) -> Outcome<(Value, Storages)> {
    let mut machine = Machine::new(bytes);
    match machine.run() {
        Ok(Value::Long(magic)) if magic == MAGIC => {}
        _ => return Err("it is neither an archive nor a stream of PyTorch".into()),
    }
    machine.run()?; // the protocol's version
    machine.run()?; // the sizes of C's integers
    let state = machine.run()?;
    let kinds = std::mem::take(&mut machine.storages);
    let Value::List(keys) = machine.run()? else {
        return Err("the list of its storages is missing".into());
    };
    let mut storages = HashMap::new();
    for key in keys.borrow().iter() {
        let Value::Text(key) = key else { return Err("a storage's key is no text".into()) };
        let kind = kinds.get(&**key).ok_or_else(|| format!("nothing reads the storage {key}"))?;
        let count = i64::from_le_bytes(machine.array()?);
        let length =
            usize::try_from(count).ok().and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
        let length = length.ok_or_else(|| format!("the storage {key} has {count} elements"))?;
        let start = machine.position;
        machine.take(length)?;
        storages.insert(key.to_string(), (start, length));
    }
    Ok((state, storages))
}

#[derive(Debug, Clone)]
struct Storage {
    key: Rc<str>,
    kind: Kind,
}

#[derive(Debug)]
struct TensorValue {
    storage: Storage,
    offset: i64,
    shape: Vec<i64>,
    stride: Vec<i64>,
}

/// The functions that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(Kind),
}

impl Function {
    fn named(module: &str, name: &str) -> Outcome<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Function::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Function::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Function::RebuildParameter,
            ("torch", "DoubleStorage") => Function::StorageOf(Kind::Double),
            ("torch", "FloatStorage") => Function::StorageOf(Kind::Float),
            ("torch", "HalfStorage") => Function::StorageOf(Kind::Half),
            ("torch", "BFloat16Storage") => Function::StorageOf(Kind::BFloat16),
            ("torch", "LongStorage") => Function::StorageOf(Kind::Int64),
            ("torch", "IntStorage") => Function::StorageOf(Kind::Int),
            ("torch", "ShortStorage") => Function::StorageOf(Kind::Int16),
            ("torch", "CharStorage") => Function::StorageOf(Kind::Int8),
            ("torch", "ByteStorage") => Function::StorageOf(Kind::Uint8),
            ("torch", "BoolStorage") => Function::StorageOf(Kind::Bool),
            _ => {
                return Err(format!(
                    "its pickle asks for `{module}.{name}`, which is no tensor: refused, and \
                     nothing of it was run"
                ))
            }
        })
    }
}

type Items = Rc<RefCell<Vec<(Value, Value)>>>;

#[derive(Debug, Clone)]
enum Value {
    None,
    Bool,
    Int(i64),
    /// A whole number of more than eight bytes, little-endian.
    Long(Vec<u8>),
    Float,
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    List(Rc<RefCell<Vec<Value>>>),
    Dict(Items),
    Function(Function),
    Storage(Storage),
    Tensor(Rc<TensorValue>),
}

impl Value {
    fn what(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool => "a truth value",
            Value::Int(_) | Value::Long(_) => "a whole number",
            Value::Float => "a number",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Function(_) => "a function",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }

    fn integer(&self) -> Outcome<i64> {
        match self {
            Value::Int(n) => Ok(*n),
            other => Err(format!("its pickle has {} for a whole number", other.what())),
        }
    }

    fn integers(&self) -> Outcome<Vec<i64>> {
        match self {
            Value::Tuple(items) => items.iter().map(Value::integer).collect(),
            other => Err(format!("its pickle has {} for a shape", other.what())),
        }
    }
}

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    storages: HashMap<Rc<str>, Kind>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Machine {
            bytes,
            position: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: HashMap::new(),
        }
    }

    /// Runs one pickle to its end and gives its value.
    fn run(&mut self) -> Outcome<Value> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let at = self.position;
            let code = self.array::<1>()?[0];
            match code {
                b'.' => return self.pop(),
                b'\x80' => drop(self.array::<1>()?), // PROTO
                b'\x95' => drop(self.array::<8>()?), // FRAME
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.stack.push(Value::None),
                b'\x88' | b'\x89' => self.stack.push(Value::Bool),
                b'K' => self.integer::<1>(false)?,
                b'M' => self.integer::<2>(false)?,
                b'J' => self.integer::<4>(true)?,
                b'\x8a' => self.long()?,
                b'G' => {
                    self.array::<8>()?;
                    self.stack.push(Value::Float);
                }
                b'X' => self.text::<4>()?,
                b'\x8c' => self.text::<1>()?,
                b')' => self.stack.push(Value::Tuple(Rc::new([]))),
                b'\x85' => self.tuple(1)?,
                b'\x86' => self.tuple(2)?,
                b'\x87' => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.stack.push(Value::Tuple(items.into()));
                }
                b']' => self.stack.push(Value::List(Rc::default())),
                b'}' => self.stack.push(Value::Dict(Rc::default())),
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set(items)?;
                }
                b'q' => {
                    let slot = u32::from(self.array::<1>()?[0]);
                    self.remember(slot)?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.remember(slot)?;
                }
                b'\x94' => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let slot = u32::from(self.array::<1>()?[0]);
                    self.recall(slot)?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.array()?);
                    self.recall(slot)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Function(Function::named(&module, &name)?));
                }
                b'\x93' => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => {
                        self.stack.push(Value::Function(Function::named(&module, &name)?));
                    }
                    _ => return Err("its pickle names a function with something else".into()),
                },
                b'Q' => self.persistent()?,
                b'R' => self.call()?,
                b'b' => {
                    // The state of a dict that has its items: a state dict's `_metadata`.
                    self.pop()?;
                    match self.stack.last() {
                        Some(Value::Dict(_)) => {}
                        _ => return Err("its pickle sets the state of an object: refused".into()),
                    }
                }
                other => {
                    return Err(format!(
                        "its pickle has the instruction {other:#04x} at byte {at}, which no state \
                         dict needs"
                    ))
                }
            }
        }
    }

    fn take(&mut self, n: usize) -> Outcome<&'a [u8]> {
        let end = self.position.checked_add(n);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or("it ends in the middle")?;
        self.position += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "it ends in the middle".into())
    }

    fn line(&mut self) -> Outcome<String> {
        let rest = &self.bytes[self.position..];
        let length = rest.iter().position(|&b| b == b'\n').ok_or("it ends in the middle")?;
        let line = self.take(length)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn pop(&mut self) -> Outcome<Value> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err("its pickle takes more than it has".into());
        }
        self.stack.pop().ok_or_else(|| "its pickle takes more than it has".into())
    }

    fn pop_mark(&mut self) -> Outcome<Vec<Value>> {
        let mark = self.marks.pop().ok_or("its pickle takes more than it has")?;
        Ok(self.stack.split_off(mark))
    }

    fn integer<const N: usize>(&mut self, signed: bool) -> Outcome<()> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        if signed && wide[N - 1] & 0x80 != 0 {
            wide[N..].fill(0xff);
        }
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn long(&mut self) -> Outcome<()> {
        let length = usize::from(self.array::<1>()?[0]);
        let bytes = self.take(length)?;
        self.stack.push(if length <= 8 {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Long(bytes.to_vec())
        });
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Outcome<()> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        let length = u64::from_le_bytes(wide) as usize;
        let text =
            std::str::from_utf8(self.take(length)?).map_err(|_| "a text in it is not UTF-8")?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> Outcome<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Outcome<Vec<_>>>()?;
        items.reverse();
        self.stack.push(Value::Tuple(items.into()));
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Outcome<()> {
        match self.stack.last() {
            Some(Value::List(list)) => {
                list.borrow_mut().extend(items);
                Ok(())
            }
            _ => Err("its pickle appends to something that is no list".into()),
        }
    }

    fn set(&mut self, items: Vec<Value>) -> Outcome<()> {
        let Some(Value::Dict(dict)) = self.stack.last() else {
            return Err("its pickle sets an item of something that is no dict".into());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.borrow_mut().push((key, value));
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Outcome<()> {
        let value = self.stack.last().ok_or("its pickle remembers nothing")?.clone();
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Outcome<()> {
        let value = self.memo.get(&slot).ok_or("its pickle recalls what it never saw")?;
        self.stack.push(value.clone());
        Ok(())
    }

    /// `("storage", type, key, location, elements, ..)` names a storage.
    fn persistent(&mut self) -> Outcome<()> {
        let id = self.pop()?;
        if let Value::Tuple(items) = &id {
            if let [Value::Text(tag), Value::Function(Function::StorageOf(kind)), Value::Text(key), _, Value::Int(_), ..] =
                &items[..]
            {
                // A last item that is not None is a view of another storage, of torch < 0.4.
                if &**tag == "storage" && items.get(5).is_none_or(|v| matches!(v, Value::None)) {
                    self.storages.insert(key.clone(), *kind);
                    self.stack.push(Value::Storage(Storage { key: key.clone(), kind: *kind }));
                    return Ok(());
                }
            }
        }
        Err("its pickle has a storage of an unknown form".into())
    }

    fn call(&mut self) -> Outcome<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Function(function), Value::Tuple(arguments)) = (&function, &arguments) else {
            return Err(format!("its pickle calls {}: refused", function.what()));
        };
        let made = match (function, &arguments[..]) {
            (Function::OrderedDict, []) => Value::Dict(Rc::default()),
            (Function::RebuildTensor, [Value::Storage(storage), offset, shape, stride, ..]) => {
                Value::Tensor(Rc::new(TensorValue {
                    storage: storage.clone(),
                    offset: offset.integer()?,
                    shape: shape.integers()?,
                    stride: stride.integers()?,
                }))
            }
            (Function::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            _ => return Err(format!("its pickle calls {function:?} with other arguments")),
        };
        self.stack.push(made);
        Ok(())
    }
}
