//! Gemma 1, 2 and the text models of 3 (Gemma Team 2024, 2024, 2025): norms that scale by 1 + w,
//! words times √hidden; from 2 on norms behind each part as well, windows in most layers, and
//! bounds of scores (2) or norms of queries and keys and a rope for layers with a window (3).

use super::description::{Bias, Description, LayerChoice, Residual, Softcaps, Usual};
use super::rope::{self, RopeKeys};
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::norm::NormKind;
use crate::options::Options;
use crate::Result;
use serde_json::{Map, Value};

/// Gemma 2's.
pub(crate) const SECOND: Usual = Usual {
    key_value_heads: Some(4),
    head_dim: Some(256),
    max_positions: 8192,
    tied: true,
    activation: ("hidden_activation", Activation::GeluTanh),
    ..Usual::LLAMA
};
/// The first Gemma's.
pub(crate) const FIRST: Usual =
    Usual { key_value_heads: Some(16), activation: ("hidden_act", Activation::GeluTanh), ..SECOND };
/// Gemma 3's; the rope is that of layers which see everything.
pub(crate) const THIRD: Usual = Usual {
    max_positions: 131_072,
    rope: RopeKeys { theta: ("rope_theta", 1e6), ..RopeKeys::LLAMA },
    one_rope: false,
    ..SECOND
};
/// θ of the layers of Gemma 3 that have a window.
pub(crate) const LOCAL_THETA: (&str, f64) = ("rope_local_base_freq", 1e4);
/// `query_pre_attn_scalar` where a file is silent.
pub(crate) const SCALAR: f64 = 256.0;
/// The bounds of Gemma 2 where a file is silent: of scores, and of logits.
pub(crate) const SOFTCAPS: [f64; 2] = [50.0, 30.0];
/// The window where a file is silent.
pub(crate) const WINDOW: i64 = 4096;
/// Of so many layers of Gemma 3 the last one sees everything, where a file is silent.
pub(crate) const PATTERN: i64 = 6;

/// The first Gemma from its `config.json`.
pub(crate) fn gemma(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let mut gemma = read(&file, &FIRST)?;
    // The first release's files say `gelu`, and mean this.
    if gemma.activation == Activation::Gelu {
        gemma.activation = Activation::GeluTanh;
    }
    gemma.build(&file, head, options)
}

/// Gemma 2 from its `config.json`.
pub(crate) fn gemma2(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let [scores, logits] = SOFTCAPS;
    let softcaps = Softcaps {
        attention: softcap(&file, "attn_logit_softcapping", Some(scores))?,
        logits: softcap(&file, "final_logit_softcapping", Some(logits))?,
    };
    let mut gemma = Description { softcaps, ..second(&file, read(&file, &SECOND)?)? };
    let window = Description::window(&file, Some(WINDOW))?;
    gemma.windows_by_type(&file, window, |i| i % 2 == 0)?;
    gemma.build(&file, head, options)
}

/// A text model of Gemma 3 from its `config.json`.
pub(crate) fn gemma3_text(
    file: ConfigFile,
    head: Head,
    options: &Options,
) -> Result<Box<dyn Backbone>> {
    file.refuse_unless_null("attn_logit_softcapping")?;
    let softcaps =
        Softcaps { attention: None, logits: softcap(&file, "final_logit_softcapping", None)? };
    let common = second(&file, read(&file, &THIRD)?)?;
    let mut gemma = Description { softcaps, normed_heads: true, ..common };
    let window = Description::window(&file, Some(WINDOW))?;
    let pattern = file.integer("sliding_window_pattern", PATTERN)?.max(1);
    let sliding = gemma.windows_by_type(&file, window, |i| (i as i64 + 1) % pattern != 0)?;
    gemma.ropes = ropes(&file, gemma.head_dim, gemma.max_positions)?.into();
    for (layer, sliding) in gemma.layers.iter_mut().zip(sliding) {
        *layer = LayerChoice { rope: Some(usize::from(sliding)), ..*layer };
    }
    gemma.build(&file, head, options)
}

/// What all of them have in common.
fn read(file: &ConfigFile, usual: &Usual) -> Result<Description> {
    if file.flag("use_bidirectional_attention", false)? {
        let problem = "`use_bidirectional_attention` is true, which is not built";
        return Err(file.problem(problem.into()));
    }
    let common = Description::read(file, usual)?;
    Ok(Description {
        norm: NormKind::CentredRms,
        embedding_scale: Some((common.hidden as f64).sqrt()),
        bias: Bias::of_attention(file)?,
        ..common
    })
}

/// What the second and third have beyond the first.
fn second(file: &ConfigFile, first: Description) -> Result<Description> {
    let scalar = file.number("query_pre_attn_scalar", SCALAR)?;
    if scalar <= 0.0 {
        let problem = format!("`query_pre_attn_scalar` is {scalar}; it must be positive");
        return Err(file.problem(problem));
    }
    Ok(Description { residual: Residual::Sandwich, scale: Some(scalar.powf(-0.5)), ..first })
}

/// A bound; `usual` where the key is not there, none where it is null.
fn softcap(file: &ConfigFile, key: &str, usual: Option<f64>) -> Result<Option<f64>> {
    if !file.keys().contains_key(key) {
        return Ok(usual);
    }
    match file.number(key, f64::NAN)? {
        none if none.is_nan() => Ok(None),
        cap if cap > 0.0 => Ok(Some(cap)),
        cap => Err(file.problem(format!("`{key}` is {cap}; it must be positive"))),
    }
}

/// The ropes of layers that see everything, and of those with a window: each by its name in
/// `rope_parameters`; or by `rope_theta` and `rope_scaling`, and by `rope_local_base_freq`.
fn ropes(file: &ConfigFile, head_dim: i64, max_positions: i64) -> Result<[rope::Rope; 2]> {
    let of = |layers: &str| -> Map<String, Value> {
        let own = file.object("rope_parameters").and_then(|all| all.get(layers));
        own.and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (mut full, sliding) = (of("full_attention"), of("sliding_attention"));
    full.extend(file.object("rope_scaling").cloned().unwrap_or_default());
    let read = |keys: Map<String, Value>, theta| {
        let names = RopeKeys { theta, ..RopeKeys::LLAMA };
        rope::read(file, Some(&keys), &names, head_dim, max_positions)
    };
    Ok([read(full, THIRD.rope.theta)?, read(sliding, LOCAL_THETA)?])
}

#[cfg(test)]
mod tests {
    use super::super::network::Network;
    use super::*;
    use crate::bodies::decoder::DecoderBody;
    use crate::nn::scope;
    use std::path::Path;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn words_get_their_noise_behind_what_scales_them() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/writers");
        let file = ConfigFile::open(&fixtures.join("gemma/config.json")).unwrap();
        let gemma = read(&file, &FIRST).unwrap();
        let options = Options::new(Device::Cpu);
        let mut vs = options.var_store();
        let (network, made) = scope::build(&mut vs, &options, |root| Network::new(&root, &gemma));
        made.noise.set(5.0);
        let ids = Tensor::zeros([2, 9], (Kind::Int64, Device::Cpu));
        // The words are zero still: what is left is the noise.
        let most = network.embed(&ids, &ids, true).abs().max().double_value(&[]);
        let bound = 5.0 / f64::sqrt(9.0 * 16.0);
        assert!(most <= bound && most > 0.8 * bound, "{most} of {bound}");
    }
}
