//! Weights in 4 and 8 bits as bitsandbytes writes them: several tensors for one of the model's.
//!
//! Of four bits, `weight` holds codes, `weight.absmax` their scales, `weight.quant_map` what codes stand
//! for, and `weight.quant_state.bitsandbytes__nf4` (or `__fp4`) the shape and the rest, a text in JSON. Scales
//! that are codes themselves have `weight.nested_absmax` and `weight.nested_quant_map`. Of eight bits,
//! `weight` holds whole numbers, and `SCB` beside it the scale of each row.

use super::contents::{Codes, CodesState, Layout, TensorEntry};
use crate::gguf::Arrangement;
use aflora_core::weight::{Coding, QuantisedWeight, Scales};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Tensors by name, each with the number of its file.
pub(super) type Tensors = BTreeMap<String, (usize, TensorEntry)>;

/// What the texts' names end in.
const STATES: [&str; 2] = [".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"];

/// More bytes than any such text has.
const LONGEST_STATE: usize = 1 << 16;

const WEIGHT: &str = "weight";
const ROWS: &str = "SCB";
const ROW_FORMAT: &str = "weight_format";

/// Reads an entry in the kind that it has.
type Read<'a> = &'a dyn Fn(&(usize, TensorEntry)) -> crate::Result<Tensor>;

/// Makes of the tensors of each weight in codes one of the shape that it stands for. Gives the weights,
/// by name, whose tensors do not fit together, and why not.
pub(super) fn join(tensors: &mut Tensors, read: Read) -> crate::Result<BTreeMap<String, String>> {
    let mut unread = BTreeMap::new();
    let names: Vec<String> = tensors.keys().cloned().collect();
    for name in names {
        let four = STATES.iter().find_map(|end| Some((name.strip_suffix(end)?, *end)));
        let (weight, found) = match (four, name.strip_suffix(ROWS)) {
            (Some((weight, end)), _) => {
                (weight.to_string(), four_bits(tensors, weight, end, read)?)
            }
            (None, Some(layer)) if layer.is_empty() || layer.ends_with('.') => {
                let weight = format!("{layer}{WEIGHT}");
                let of_eight = |(_, entry): &(usize, TensorEntry)| entry.kind() == Kind::Int8;
                if !tensors.get(&weight).is_some_and(of_eight) {
                    continue;
                }
                let found = eight_bits(tensors, layer, &weight, read)?;
                (weight, found)
            }
            _ => continue,
        };
        match found {
            Ok((shape, codes)) => {
                let (file, entry) = codes.parts[WEIGHT].clone();
                let (layout, arrangement) = (Layout::Codes(Box::new(codes)), Arrangement::Own);
                let entry = TensorEntry { shape, layout, offset: entry.offset, arrangement };
                tensors.insert(weight, (file, entry));
            }
            Err(problem) => {
                tensors.remove(&weight);
                unread.insert(
                    weight,
                    format!("a weight of bitsandbytes that does not fit: {problem}"),
                );
            }
        }
    }
    Ok(unread)
}

/// The tensors of the weight `name` of a model as bitsandbytes writes them, of which it makes numbers of
/// the type `dtype`.
///
/// # Errors
/// libtorch refuses; or the weight is in a format that bitsandbytes has not.
pub(crate) fn tensors(
    name: &str,
    weight: &QuantisedWeight,
    dtype: &str,
) -> crate::Result<Vec<(String, Tensor)>> {
    let of = |part: &str, tensor: &Tensor| (format!("{name}.{part}"), tensor.shallow_clone());
    let codes = weight.codes();
    let (map, block, scales) = match weight.coding() {
        Coding::Rows { scales, .. } => {
            let layer = name.strip_suffix(WEIGHT).unwrap_or(name);
            let rows = Tensor::from_slice(&[0u8]).f_view([0i64; 0])?;
            return Ok(vec![
                (name.to_string(), codes.shallow_clone()),
                (format!("{layer}{ROWS}"), scales.shallow_clone()),
                (format!("{layer}{ROW_FORMAT}"), rows),
            ]);
        }
        Coding::E4m3 { .. } => {
            let problem = format!("`{name}` is in fp8, which bitsandbytes has not");
            return Err(crate::Error::Unbuilt(problem));
        }
        Coding::Blocks(_) => {
            let problem = format!("`{name}` is in blocks of a GGUF file, which are not written so");
            return Err(crate::Error::Unbuilt(problem));
        }
        Coding::Map { map, block, scales } => (map, block, scales),
    };
    let mut state = serde_json::json!({
        "quant_type": "nf4", "blocksize": block, "dtype": dtype, "shape": weight.shape(),
    });
    let mut tensors = vec![(name.to_string(), codes.f_view([-1, 1])?), of("quant_map", map)];
    match scales {
        Scales::Plain(scales) => tensors.push(of("absmax", scales)),
        Scales::Nested { codes, map, scales, offset, block } => {
            tensors.extend([
                of("absmax", codes),
                of("nested_absmax", scales),
                of("nested_quant_map", map),
            ]);
            state["nested_blocksize"] = (*block).into();
            state["nested_dtype"] = "float32".into();
            state["nested_offset"] = (*offset).into();
        }
    }
    let text = Tensor::from_slice(state.to_string().as_bytes());
    tensors.push((format!("{name}{}", STATES[0]), text));
    Ok(tensors)
}

/// What was found: a shape and codes, or what is wrong with them.
type Found = Result<(Vec<i64>, Codes), String>;

fn four_bits(tensors: &mut Tensors, weight: &str, end: &str, read: Read) -> crate::Result<Found> {
    let mut parts = BTreeMap::new();
    for part in ["absmax", "quant_map", "nested_absmax", "nested_quant_map"] {
        if let Some(entry) = tensors.remove(&format!("{weight}.{part}")) {
            parts.insert(part, entry);
        }
    }
    if let Some(codes) = tensors.remove(weight) {
        parts.insert(WEIGHT, codes);
    }
    let Some(text) = tensors.remove(&format!("{weight}{end}")) else { return Ok(Err(end.into())) };
    if text.1.kind() != Kind::Uint8 || text.1.extent().is_none_or(|n| n > LONGEST_STATE) {
        return Ok(Err(format!("`{end}` is no text")));
    }
    let text = Vec::<u8>::try_from(read(&text)?.f_view([-1])?)?;
    let state: CodesState = match serde_json::from_slice(&text) {
        Ok(state) => state,
        Err(error) => return Ok(Err(format!("`{end}`: {error}"))),
    };
    Ok(check_four_bits(Codes { parts, state }))
}

/// Every tensor is there, of its kind, and of as many numbers as the state asks for.
fn check_four_bits(codes: Codes) -> Found {
    let CodesState { blocksize, nested_blocksize, shape, .. } = &codes.state;
    let [rows, columns] = shape[..] else { return Err(format!("its shape is {shape:?}")) };
    let numbers = rows.checked_mul(columns).filter(|_| rows > 0 && columns > 0);
    let Some(numbers) = numbers else { return Err(format!("its shape is {shape:?}")) };
    if *blocksize < 2 || blocksize % 2 != 0 {
        return Err(format!("its blocksize is {blocksize}"));
    }
    let blocks = ceil(numbers, *blocksize);
    codes.check(WEIGHT, Kind::Uint8, ceil(numbers, 2))?;
    codes.check("quant_map", Kind::Float, 16)?;
    if codes.parts.contains_key("nested_absmax") {
        if *nested_blocksize < 1 {
            return Err(format!("its nested_blocksize is {nested_blocksize}"));
        }
        codes.check("absmax", Kind::Uint8, blocks)?;
        codes.check("nested_quant_map", Kind::Float, 256)?;
        codes.check("nested_absmax", Kind::Float, ceil(blocks, *nested_blocksize))?;
    } else {
        codes.check("absmax", Kind::Float, blocks)?;
    }
    Ok((vec![rows, columns], codes))
}

fn eight_bits(
    tensors: &mut Tensors,
    layer: &str,
    weight: &str,
    read: Read,
) -> crate::Result<Found> {
    let rows = tensors.remove(&format!("{layer}{ROWS}"));
    let (codes, format) = (tensors.remove(weight), tensors.remove(&format!("{layer}{ROW_FORMAT}")));
    if let Some(format) = format.filter(|(_, entry)| entry.shape.iter().product::<i64>() == 1) {
        let format = read(&format)?.f_view([1])?.f_int64_value(&[0])?;
        if format != 0 {
            return Ok(Err(format!("its weight_format is {format}, not rows")));
        }
    }
    let parts = [(WEIGHT, codes), (ROWS, rows)];
    let parts = parts.into_iter().filter_map(|(name, entry)| Some((name, entry?)));
    let parts: BTreeMap<_, _> = parts.collect();
    let shape = parts.get(WEIGHT).map(|(_, entry)| entry.shape.clone()).unwrap_or_default();
    let state = CodesState { blocksize: 0, shape, nested_blocksize: 0, nested_offset: 0.0 };
    let codes = Codes { parts, state };
    let shape = codes.state.shape.clone();
    let [count, _] = shape[..] else { return Ok(Err(format!("its shape is {shape:?}"))) };
    Ok(codes.check(ROWS, Kind::Float, count).map(|()| (shape, codes)))
}

/// How many `parts` it takes to hold `n`, both above zero.
fn ceil(n: i64, part: i64) -> i64 {
    n / part + i64::from(n % part != 0)
}

impl Codes {
    fn check(&self, part: &'static str, kind: Kind, count: i64) -> Result<(), String> {
        let Some((_, entry)) = self.parts.get(part) else { return Err(format!("no `{part}`")) };
        let found = entry.shape.iter().try_fold(1i64, |n, &d| n.checked_mul(d));
        match entry.kind() == kind && found == Some(count) {
            true => Ok(()),
            false => Err(format!(
                "`{part}` is {:?} {:?}, not {count} of {kind:?}",
                entry.kind(),
                entry.shape
            )),
        }
    }

    /// The weight, on the host.
    pub fn read(&self, read: Read) -> crate::Result<QuantisedWeight> {
        let tensor = |part: &str| read(&self.parts[part]);
        let flat = |part: &str| Ok::<_, crate::Error>(tensor(part)?.f_view([-1])?);
        let CodesState { blocksize, shape, nested_blocksize, nested_offset } = &self.state;
        let shape = [shape[0], shape[1]];
        if self.parts.contains_key(ROWS) {
            let coding = Coding::Rows { scales: flat(ROWS)?, dynamic: false };
            return Ok(QuantisedWeight::new(tensor(WEIGHT)?, coding, shape)?);
        }
        let scales = match self.parts.contains_key("nested_absmax") {
            false => Scales::Plain(flat("absmax")?),
            true => Scales::Nested {
                codes: flat("absmax")?,
                map: flat("nested_quant_map")?,
                scales: flat("nested_absmax")?,
                offset: *nested_offset,
                block: *nested_blocksize,
            },
        };
        let coding = Coding::Map { map: flat("quant_map")?, block: *blocksize, scales };
        Ok(QuantisedWeight::new(flat(WEIGHT)?, coding, shape)?)
    }
}
