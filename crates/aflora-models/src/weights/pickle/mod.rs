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

mod machine;

use super::checkpoint::Place;
use machine::{Machine, TensorValue, Value};
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

type Outcome<T> = Result<T, String>;

/// The tensors of the state dict in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Outcome<BTreeMap<String, Place>> {
    let (machine, state, storages) =
        if bytes.starts_with(b"PK\x03\x04") { read_archive(bytes)? } else { read_stream(bytes)? };
    let Value::Dict(items) = state else {
        return Err("it holds no dict of tensors by name".into());
    };
    let mut places = BTreeMap::new();
    for item in machine.items(items).chunks_exact(2) {
        let (name, value) = (&item[0], &item[1]);
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

/// The machine that ran the pickle, what it gave, and where the storages lie.
type State<'a> = (Machine<'a>, Value, Storages);

fn read_archive(bytes: &[u8]) -> Outcome<State<'_>> {
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
    let mut machine = Machine::new(program);
    let state = machine.run()?;
    Ok((machine, state, storages))
}

/// The first number of a file of torch < 1.6, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn read_stream(bytes: &[u8]) -> Outcome<State<'_>> {
    let mut machine = Machine::new(bytes);
    match machine.run() {
        Ok(Value::Long(magic)) if *magic == MAGIC => {}
        _ => return Err("it is neither an archive nor a stream of PyTorch".into()),
    }
    machine.run()?; // the protocol's version
    machine.run()?; // the sizes of C's integers
    let state = machine.run()?;
    let kinds = std::mem::take(&mut machine.storages);
    let Value::List(keys) = machine.run()? else {
        return Err("the list of its storages is missing".into());
    };
    let keys = machine.items(keys).to_vec();
    let mut storages = HashMap::new();
    for key in &keys {
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
    Ok((machine, state, storages))
}
