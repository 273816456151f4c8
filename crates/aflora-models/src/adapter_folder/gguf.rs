//! Adapters as a GGUF file, in the layout of llama.cpp's `--lora`.

use super::write::{of_one_rank, pairs};
use crate::adapted::AdaptedModel;
use crate::gguf::{GgufFile, Precision};
use crate::{merged_gguf, Error, Result};
use aflora_core::adapter::{LowRank, MethodConfig};
use std::path::Path;

/// The adapters of `model`, which are of `method`, as plain LoRA for the model of the kind `kind` in
/// `source`: every vector, gate and scale folded into A and B.
///
/// # Errors
/// The model has no adapters, they do not fold into that, or modules were trained beside them, for
/// which such a file has no place; or it is of a kind that no such files are written of.
pub fn export_gguf(
    model: &AdaptedModel,
    method: &MethodConfig,
    kind: &str,
    source: &Path,
) -> Result<GgufFile> {
    let Some(pairs) = pairs(model)? else {
        let name = method.name();
        let problem =
            format!("adapters of the method `{name}` are no plain LoRA; merge them instead");
        return Err(Error::Unbuilt(problem));
    };
    if let Some((name, _)) = model.saved_weights().first() {
        let problem =
            format!("`{name}` was trained beside the adapters, and has no place in a GGUF file of them; merge them instead");
        return Err(Error::Unbuilt(problem));
    }
    let config = merged_gguf::config(source)?;
    let keys = merged_gguf::keys(&config, kind)?;
    let (rank, pairs) = of_one_rank(pairs);
    let mut tensors = Vec::new();
    for (site, LowRank { down, up }) in pairs {
        let own = format!("{site}.weight");
        let stored = keys.stored_name(&own)?;
        // What is done with a matrix's rows is done with those of B.
        let up = keys.arranged(&own, &up)?;
        tensors.push((format!("{stored}.lora_a"), down));
        tensors.push((format!("{stored}.lora_b"), up));
    }
    // A scale of alpha / rank = 1.
    Ok(GgufFile { keys: keys.of_adapter(rank as f64), tensors, precision: Precision::F32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build, weights, Head, Options, Pattern, Targets};
    use std::collections::BTreeMap;
    use tch::{Device, Kind, Tensor};

    fn fixture() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/smollm.gguf")
    }

    #[test]
    fn the_file_s_pairs_make_of_the_base_s_rows_those_of_the_merged_model() {
        let source = fixture();
        let config = source.join("config.json");
        let backbone = build("llama", &config, Head::Language, &Options::new(Device::Cpu)).unwrap();
        weights::load(backbone.as_ref(), &source).unwrap();
        let method = MethodConfig::Lora(aflora_core::adapter::LoraConfig::default());
        let names = ["q_proj", "k_proj", "down_proj"].map(String::from).to_vec();
        let targets = Targets { target_modules: Pattern::Names(names), ..Default::default() };
        let built = method.build().unwrap();
        let model =
            AdaptedModel::new(backbone, built.as_ref(), &targets, &[], Kind::Float, 1).unwrap();
        tch::no_grad(|| {
            for mut tensor in model.adapters().flat_map(|adapter| adapter.tensors()) {
                let _ = tensor.tensor.normal_(0.0, 0.1);
            }
        });
        let rows = |weights: BTreeMap<String, Tensor>| -> BTreeMap<String, Tensor> {
            let config = merged_gguf::config(&source).unwrap();
            let keys = merged_gguf::keys(&config, "llama").unwrap();
            keys.file(Vec::new(), weights, Precision::F32).unwrap().tensors.into_iter().collect()
        };
        let base = rows(weights::read_tensors(&source).unwrap());
        let merged = rows(model.merged_weights());
        let file = export_gguf(&model, &method, "llama", &source).unwrap();
        let pairs: BTreeMap<String, Tensor> = file.tensors.into_iter().collect();
        assert_eq!(pairs.len(), 6);
        for name in ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.ffn_down.weight"] {
            let pair = |which: &str| &pairs[&format!("{name}.lora_{which}")];
            let found = &base[name] + pair("b").matmul(pair("a"));
            assert!(found.allclose(&merged[name], 1e-6, 1e-6, false), "{name}");
            assert!(!base[name].allclose(&merged[name], 1e-2, 1e-2, false), "{name}");
        }
    }
}
