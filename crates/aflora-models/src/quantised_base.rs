//! A model without adapters whose layers are in few bits, as bitsandbytes writes it: the base that an
//! adapter learned beside, to the bit.
//!
//! `transformers` opens the folder with its codes as they are; so does this crate.

use crate::backbone::Backbone;
use crate::companions::ModelSource;
use crate::merged::{put_tied, NOT_COPIED};
use crate::weights::bitsandbytes_tensors;
use crate::written::{write_safetensors_raw, write_whole, StoredKind};
use crate::{companions, json, Error, Result};
use aflora_core::weight::{FrozenWeight, QuantisedWeight, WeightFormat};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::Tensor;

/// Writes `model`, made of the files of `source`, to `folder`: what it holds in few bits in its codes,
/// all else rounded once to `stored`, but for what the source has not, such as a new head.
///
/// # Errors
/// Its layers are in no format that bitsandbytes has, or in several; the source's files cannot be read,
/// or the folder not be written. It appears whole or not at all; one that was there is replaced.
pub fn save<'a>(
    model: &dyn Backbone,
    source: impl Into<ModelSource<'a>>,
    folder: &Path,
    stored: StoredKind,
) -> Result<()> {
    let source = source.into();
    let config = source.model.join("config.json");
    let mut keys = json::read_object(&config, "a Hugging Face config.json")?;
    let quantised = model.quantised();
    if quantised.values().any(|layer| layer.transposed) {
        let problem = "its layers lie transposed, as GPT-2's: no codes of such are written";
        return Err(Error::Unbuilt(problem.into()));
    }
    let mut weights: BTreeMap<String, Tensor> = model.var_store().variables().into_iter().collect();
    weights.retain(|name, weight| weight.is_floating_point() && !model.frame().lacks(name));
    put_tied(&keys, model, &mut weights);

    let (mut tensors, mut formats) = (BTreeMap::new(), Vec::new());
    for (name, weight) in weights {
        match quantised.get(&name).map(|layer| layer.weight()) {
            Some(FrozenWeight::Quantised(weight)) => {
                formats.push(format(&name, &weight)?);
                tensors.extend(bitsandbytes_tensors(&name, &weight, stored.name())?);
            }
            _ => {
                tensors.insert(name, weight.f_to_kind(stored.kind())?);
            }
        }
    }
    let Some(&first) = formats.first() else {
        return Err(Error::Unbuilt("none of its layers is in few bits".into()));
    };
    if formats.iter().any(|format| *format != first) {
        let problem = "its layers are in few bits of several kinds: a config.json names one";
        return Err(Error::Unbuilt(problem.into()));
    }
    keys.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    keys.insert("quantization_config".into(), settings(first, stored, whole_layers(model))?);
    write_whole(folder, |folder| {
        let path = folder.join("config.json");
        fs::write(&path, json::to_text(&keys) + "\n").map_err(Error::io(&path))?;
        write_safetensors_raw(&folder.join("model.safetensors"), tensors)?;
        companions::copy_all(source, folder)
    })
}

/// What a weight is in, which bitsandbytes must have.
fn format(name: &str, weight: &QuantisedWeight) -> Result<WeightFormat> {
    weight.format().ok_or_else(|| {
        Error::Unbuilt(format!(
            "`{name}` lies in a GGUF file's blocks, which bitsandbytes has not: that file is the base \
             to keep beside the adapter"
        ))
    })
}

/// The linear layers that are not in few bits, by what their names end in: files, and models of other
/// heads, may leave the prefix out.
fn whole_layers(model: &dyn Backbone) -> Vec<String> {
    let about = model.about();
    let dense = model.linears().iter().filter(|linear| linear.layer.format().is_none());
    let further = model.further_linears();
    let names = dense.chain(&further).map(|linear| linear.site.name.as_str());
    let heads = about.head_modules.iter().chain(about.new_modules).copied().chain(["lm_head"]);
    let bare = |name: &str| name.strip_prefix(about.prefix).unwrap_or(name).to_string();
    let mut names: Vec<String> = names.chain(heads).map(bare).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What config.json says of weights in few bits.
fn settings(format: WeightFormat, stored: StoredKind, whole: Vec<String>) -> Result<Value> {
    Ok(match format {
        WeightFormat::Fp8 => return Err(Error::Unbuilt("bitsandbytes has no fp8".into())),
        WeightFormat::Int8 | WeightFormat::Int8Dynamic => json!({
            "quant_method": "bitsandbytes",
            "load_in_8bit": true,
            "load_in_4bit": false,
            "llm_int8_skip_modules": whole,
        }),
        WeightFormat::Nf4 | WeightFormat::Nf4Nested => json!({
            "quant_method": "bitsandbytes",
            "load_in_8bit": false,
            "load_in_4bit": true,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": format == WeightFormat::Nf4Nested,
            "bnb_4bit_compute_dtype": stored.name(),
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": whole,
        }),
    })
}
