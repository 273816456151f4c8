//! The stack machine that pickles are programs for: as many of its instructions and functions as
//! a state dict needs.
//!
//! Tuples, lists and dicts lie side by side in the machine, and values name them by number. So a
//! pickle may nest them as deeply as it likes, or put one into itself: nothing here recurses.

use crate::error::cut;
use std::collections::HashMap;
use std::rc::Rc;
use tch::Kind;

/// What was made of a pickle, or why the pickle is refused.
pub(super) type PickleResult<T> = Result<T, String>;

#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub key: Rc<str>,
    pub element: Element,
}

/// What the numbers of a storage are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// Numbers of this kind.
    Of(Kind),
    /// Others, of so many bytes.
    Other(usize),
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Element::Of(kind) => kind.elt_size_in_bytes(),
            Element::Other(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
pub(super) struct TensorValue {
    pub storage: Rc<str>,
    pub kind: Kind,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub stride: Vec<i64>,
}

/// The functions that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(Element),
    /// Makes something that no tensor needs, which is skipped: these words say what.
    Other(&'static str),
}

/// What a tensor is called whose numbers are of a type that is not read.
const UNREAD: &str = "a tensor of a type that is not read";

impl Function {
    /// The functions are those that `torch.load(…, weights_only=True)` knows.
    fn named(module: &str, name: &str) -> PickleResult<Self> {
        let storage = |kind| Ok(Function::StorageOf(Element::Of(kind)));
        let other = |words| Ok(Function::Other(words));
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Function::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => {
                Ok(Function::RebuildTensor)
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Ok(Function::RebuildParameter)
            }
            ("torch", "DoubleStorage") => storage(Kind::Double),
            ("torch", "FloatStorage") => storage(Kind::Float),
            ("torch", "HalfStorage") => storage(Kind::Half),
            ("torch", "BFloat16Storage") => storage(Kind::BFloat16),
            ("torch", "LongStorage") => storage(Kind::Int64),
            ("torch", "IntStorage") => storage(Kind::Int),
            ("torch", "ShortStorage") => storage(Kind::Int16),
            ("torch", "CharStorage") => storage(Kind::Int8),
            ("torch", "ByteStorage") => storage(Kind::Uint8),
            ("torch", "BoolStorage") => storage(Kind::Bool),
            ("torch", "QInt8Storage" | "QUInt8Storage") | ("torch.storage", "UntypedStorage") => {
                Ok(Function::StorageOf(Element::Other(1)))
            }
            ("torch", "QInt32Storage") => Ok(Function::StorageOf(Element::Other(4))),
            ("torch", "ComplexFloatStorage") => Ok(Function::StorageOf(Element::Other(8))),
            ("torch", "ComplexDoubleStorage") => Ok(Function::StorageOf(Element::Other(16))),
            ("torch._utils", "_rebuild_tensor_v3" | "_rebuild_qtensor") => other(UNREAD),
            ("torch._utils", "_rebuild_sparse_tensor") => other("a sparse tensor"),
            ("torch._utils", "_rebuild_nested_tensor") => other("a nested tensor"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => other("a tensor without data"),
            ("torch", "device") => other("a device"),
            ("torch", "Size") => other("a shape"),
            ("torch.serialization", "_get_layout") => other("a layout"),
            ("torch", name) if is_dtype(name) => other("a type of numbers"),
            ("collections", "Counter") => other("counts"),
            ("_codecs", "encode") => other("bytes"),
            ("__builtin__" | "builtins", "bytearray") => other("bytes"),
            ("__builtin__" | "builtins", "set") => other("a set"),
            ("__builtin__" | "builtins", "complex") => other("a complex number"),
            _ => Err(format!(
                "its pickle asks for `{module}.{name}`, which is no tensor: refused, and nothing \
                 of it was run"
            )),
        }
    }
}

/// Whether this is one of PyTorch's types of numbers, such as `float32` or `float8_e4m3fn`.
fn is_dtype(name: &str) -> bool {
    let families = ["float", "bfloat", "int", "uint", "complex", "qint", "quint"];
    let sized = |family: &&str| {
        name.strip_prefix(*family)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    name == "bool" || families.iter().any(sized)
}

/// The most dimensions that a tensor may have; PyTorch has the same limit.
const DIMENSIONS: usize = 64;

/// The number of a tuple, list or dict in the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContainerId(usize);

#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    /// A whole number of more than eight bytes, little-endian.
    Long(Rc<[u8]>),
    Float,
    Text(Rc<str>),
    Tuple(ContainerId),
    List(ContainerId),
    /// Keys and values in turn.
    Dict(ContainerId),
    Function(Function),
    Storage(Storage),
    Tensor(Rc<TensorValue>),
    /// Something that no tensor needs, and what it is.
    Other(&'static str),
}

impl Value {
    pub fn what(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool => "a truth value",
            Value::Int(_) | Value::Long(_) => "a whole number",
            Value::Float => "a number",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Function(Function::Other(what)) | Value::Other(what) => what,
            Value::Function(_) => "a function",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }

    fn integer(&self) -> PickleResult<i64> {
        match self {
            Value::Int(n) => Ok(*n),
            other => Err(format!("its pickle has {} for a whole number", other.what())),
        }
    }
}

/// The stack machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Bytes read so far.
    pub position: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    containers: Vec<Vec<Value>>,
    /// The storages that were named.
    pub storages: HashMap<Rc<str>, Element>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Machine {
            bytes,
            position: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            containers: Vec::new(),
            storages: HashMap::new(),
        }
    }

    /// What a tuple, list or dict holds.
    pub fn items(&self, container: ContainerId) -> &[Value] {
        &self.containers[container.0]
    }

    fn add_container(&mut self, items: Vec<Value>) -> ContainerId {
        self.containers.push(items);
        ContainerId(self.containers.len() - 1)
    }

    fn integers(&self, value: &Value) -> PickleResult<Vec<i64>> {
        let Value::Tuple(container) = value else {
            return Err(format!("its pickle has {} for a shape", value.what()));
        };
        let items = self.items(*container);
        if items.len() > DIMENSIONS {
            return Err(format!("its pickle has a tensor of {} dimensions", items.len()));
        }
        items.iter().map(Value::integer).collect()
    }

    /// Runs one pickle to its end and gives its value.
    pub fn run(&mut self) -> PickleResult<Value> {
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
                b'\x8c' | b'U' => self.text::<1>()?,
                b')' => self.tuple(0)?,
                b'\x85' => self.tuple(1)?,
                b'\x86' => self.tuple(2)?,
                b'\x87' => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    let container = self.add_container(items);
                    self.stack.push(Value::Tuple(container));
                }
                b']' => {
                    let container = self.add_container(Vec::new());
                    self.stack.push(Value::List(container));
                }
                b'}' => {
                    let container = self.add_container(Vec::new());
                    self.stack.push(Value::Dict(container));
                }
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
                        Some(Value::Dict(_) | Value::Other(_)) => {}
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

    pub fn take(&mut self, n: usize) -> PickleResult<&'a [u8]> {
        let end = self.position.checked_add(n);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or_else(|| cut("it ends in the middle".into()))?;
        self.position += n;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> PickleResult<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| cut("it ends in the middle".into()))
    }

    fn line(&mut self) -> PickleResult<String> {
        let rest = &self.bytes[self.position..];
        let length = rest.iter().position(|&b| b == b'\n');
        let length = length.ok_or_else(|| cut("it ends in the middle".into()))?;
        let line = self.take(length)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn pop(&mut self) -> PickleResult<Value> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err("its pickle takes more than it has".into());
        }
        self.stack.pop().ok_or_else(|| "its pickle takes more than it has".into())
    }

    fn pop_mark(&mut self) -> PickleResult<Vec<Value>> {
        let mark = self.marks.pop().ok_or("its pickle takes more than it has")?;
        Ok(self.stack.split_off(mark))
    }

    fn integer<const N: usize>(&mut self, signed: bool) -> PickleResult<()> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        if signed && wide[N - 1] & 0x80 != 0 {
            wide[N..].fill(0xff);
        }
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn long(&mut self) -> PickleResult<()> {
        let length = usize::from(self.array::<1>()?[0]);
        let bytes = self.take(length)?;
        self.stack.push(if length <= 8 {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Long(bytes.into())
        });
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> PickleResult<()> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        let length = u64::from_le_bytes(wide) as usize;
        let text =
            std::str::from_utf8(self.take(length)?).map_err(|_| "a text in it is not UTF-8")?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn tuple(&mut self, n: usize) -> PickleResult<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<PickleResult<Vec<_>>>()?;
        items.reverse();
        let container = self.add_container(items);
        self.stack.push(Value::Tuple(container));
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> PickleResult<()> {
        match self.stack.last() {
            Some(Value::List(container)) => {
                self.containers[container.0].extend(items);
                Ok(())
            }
            _ => Err("its pickle appends to something that is no list".into()),
        }
    }

    fn set(&mut self, items: Vec<Value>) -> PickleResult<()> {
        let Some(Value::Dict(container)) = self.stack.last() else {
            return Err("its pickle sets an item of something that is no dict".into());
        };
        if !items.len().is_multiple_of(2) {
            return Err("its pickle sets a key of a dict to nothing".into());
        }
        self.containers[container.0].extend(items);
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> PickleResult<()> {
        let value = self.stack.last().ok_or("its pickle remembers nothing")?.clone();
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> PickleResult<()> {
        let value = self.memo.get(&slot).ok_or("its pickle recalls what it never saw")?;
        self.stack.push(value.clone());
        Ok(())
    }

    /// `("storage", type, key, location, elements, ..)` names a storage.
    fn persistent(&mut self) -> PickleResult<()> {
        let id = self.pop()?;
        if let Value::Tuple(container) = id {
            if let [Value::Text(tag), Value::Function(Function::StorageOf(element)), Value::Text(key), _, Value::Int(_), ..] =
                self.items(container)
            {
                // A last item that is not None is a view of another storage, of torch < 0.4.
                let view = self.items(container).get(5).is_some_and(|v| !matches!(v, Value::None));
                if &**tag == "storage" && !view {
                    let storage = Storage { key: key.clone(), element: *element };
                    self.storages.insert(storage.key.clone(), storage.element);
                    self.stack.push(Value::Storage(storage));
                    return Ok(());
                }
            }
        }
        Err("its pickle has a storage of an unknown form".into())
    }

    fn call(&mut self) -> PickleResult<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Function(function), Value::Tuple(arguments)) = (&function, &arguments) else {
            return Err(format!("its pickle calls {}: refused", function.what()));
        };
        let made = match (function, self.items(*arguments)) {
            (Function::OrderedDict, []) => Value::Dict(self.add_container(Vec::new())),
            (Function::RebuildTensor, [Value::Storage(storage), offset, shape, stride, ..]) => {
                match storage.element {
                    Element::Of(kind) => Value::Tensor(Rc::new(TensorValue {
                        storage: storage.key.clone(),
                        kind,
                        offset: offset.integer()?,
                        shape: self.integers(shape)?,
                        stride: self.integers(stride)?,
                    })),
                    Element::Other(_) => Value::Other(UNREAD),
                }
            }
            (Function::RebuildParameter, [tensor @ (Value::Tensor(_) | Value::Other(_)), ..]) => {
                tensor.clone()
            }
            (Function::Other(what), _) => Value::Other(what),
            _ => return Err(format!("its pickle calls {function:?} with other arguments")),
        };
        self.stack.push(made);
        Ok(())
    }
}
