//! The tensors of a PyTorch file (`pytorch_model.bin`), without running what it says.
//!
//! Such a file holds a *pickle*: a program for a small stack machine that may call any Python
//! function. This reads the few instructions that a state dict needs and knows the functions that
//! make tensors and dicts. What else PyTorch itself takes for harmless (a device, a shape, numbers
//! of another type) is skipped and only missed where a model needs it. Whatever else a pickle asks
//! for is refused by name; nothing is ever called.
//!
//! A state dict may lie in another dict, under a name that programs for training use ([`WRAPS`]).
//!
//! Two layouts are read: the zip archive of torch ≥ 1.6 (`data.pkl`, and each storage in a file
//! of its own, not compressed), and the stream of pickles before it, in which many older
//! checkpoints on the hub still lie.

mod machine;

use super::contents::{Contents, TensorEntry};
use crate::error::cut;
use machine::{ContainerId, Machine, PickleResult, TensorValue, Value};
use std::collections::HashMap;
use std::io::Cursor;

/// What a state dict is called in a dict of more.
const WRAPS: [&str; 4] = ["state_dict", "model", "model_state_dict", "module"];

/// The tensors of the state dict in `bytes`.
pub(super) fn read(bytes: &[u8]) -> PickleResult<Contents> {
    let (machine, state, storages) =
        if bytes.starts_with(b"PK\x03\x04") { read_archive(bytes)? } else { read_stream(bytes)? };
    let Value::Dict(outer) = state else {
        return Err(format!("it holds {}, no dict of tensors by name", state.what()));
    };
    let dict = wrapped(&machine, outer).unwrap_or(outer);
    let mut contents = Contents::default();
    for (key, value) in entries(&machine, dict) {
        match (key, value) {
            (Value::Text(name), Value::Tensor(tensor)) => {
                contents.tensors.insert(name.to_string(), tensor_entry(name, tensor, &storages)?);
            }
            (Value::Text(name), other) => {
                contents.unread.insert(name.to_string(), other.what().to_string());
            }
            (key, value) => {
                let by = format!("(by {})", key.what());
                contents.unread.insert(by, value.what().to_string());
            }
        }
    }
    if contents.tensors.is_empty() && !contents.unread.is_empty() {
        let found = contents.unread.iter().take(10).map(|(name, what)| format!("`{name}`: {what}"));
        let found = found.collect::<Vec<_>>().join(", ");
        return Err(format!("it holds a dict without a tensor by name; it has {found}"));
    }
    Ok(contents)
}

/// The keys of a dict with their values.
fn entries<'m>(
    machine: &'m Machine<'_>,
    dict: ContainerId,
) -> impl Iterator<Item = (&'m Value, &'m Value)> {
    machine.items(dict).chunks_exact(2).map(|item| (&item[0], &item[1]))
}

/// The dict of tensors in a dict that has none of its own.
fn wrapped(machine: &Machine<'_>, outer: ContainerId) -> Option<ContainerId> {
    let has_tensors = |dict: ContainerId| {
        entries(machine, dict).any(|(_, value)| matches!(value, Value::Tensor(_)))
    };
    if has_tensors(outer) {
        return None;
    }
    let under = |wrap: &str| {
        entries(machine, outer).find_map(|(key, value)| match (key, value) {
            (Value::Text(name), &Value::Dict(inner)) if **name == *wrap => Some(inner),
            _ => None,
        })
    };
    WRAPS.iter().filter_map(|wrap| under(wrap)).find(|&inner| has_tensors(inner))
}

/// By a storage's name: the bytes before it in the file, and the bytes that it has.
type Storages = HashMap<String, (usize, usize)>;

fn tensor_entry(
    name: &str,
    tensor: &TensorValue,
    storages: &Storages,
) -> PickleResult<TensorEntry> {
    let TensorValue { storage, kind, offset, shape, stride } = tensor;
    let &(start, bytes) = storages
        .get(&**storage)
        .ok_or_else(|| format!("the storage {storage} of `{name}` is not in it"))?;
    let size = kind.elt_size_in_bytes();
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
    let offset = start + skipped * size;
    Ok(TensorEntry::strided(shape.clone(), stride.clone(), *kind, offset))
}

/// The machine that ran the pickle, what it gave, and where the storages lie.
type Unpickled<'a> = (Machine<'a>, Value, Storages);

fn read_archive(bytes: &[u8]) -> PickleResult<Unpickled<'_>> {
    // A zip archive's directory stands at its end, so that a file that was cut off has none.
    let words = |e: zip::result::ZipError| cut(e.to_string());
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
        let data = range.ok_or_else(|| cut(format!("`{name}` in it ends after the file")))?;
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
    let mut machine = Machine::new(program);
    let state = machine.run()?;
    Ok((machine, state, storages))
}

/// The first number of a file of torch < 1.6, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn read_stream(bytes: &[u8]) -> PickleResult<Unpickled<'_>> {
    let mut machine = Machine::new(bytes);
    match machine.run() {
        Ok(Value::Long(magic)) if *magic == MAGIC => {}
        _ => return Err("it is neither an archive nor a stream of PyTorch".into()),
    }
    machine.run()?; // the protocol's version
    machine.run()?; // the sizes of C's integers
    let state = machine.run()?;
    let elements = std::mem::take(&mut machine.storages);
    let Value::List(keys) = machine.run()? else {
        return Err("the list of its storages is missing".into());
    };
    let keys = machine.items(keys).to_vec();
    let mut storages = HashMap::new();
    for key in &keys {
        let Value::Text(key) = key else { return Err("a storage's key is no text".into()) };
        let element =
            elements.get(&**key).ok_or_else(|| format!("nothing reads the storage {key}"))?;
        let count = i64::from_le_bytes(machine.array()?);
        let length = usize::try_from(count).ok().and_then(|n| n.checked_mul(element.bytes()));
        let length = length.ok_or_else(|| format!("the storage {key} has {count} elements"))?;
        let start = machine.position;
        machine.take(length)?;
        storages.insert(key.to_string(), (start, length));
    }
    Ok((machine, state, storages))
}
