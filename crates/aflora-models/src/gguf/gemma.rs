//! What files of Gemma 2 and 3 have of their own: bounds, windows in some layers, and the rope of
//! these.

use super::family::{Family, PLAIN};
use super::from_config::ModelKeys;
use super::model::ModelHeader;
use super::own_keys::{BOUNDS, LOCAL, PATTERN, WINDOW};
use super::value::Value as Stored;
use super::writer::Written;
use crate::bodies::llama_like::gemma as gemmas;
use serde_json::{json, Map, Value};

/// Gemma 2's.
pub(super) const SECOND: Family = Family {
    read: |header, config| {
        for (key, usual) in BOUNDS.into_iter().zip(gemmas::SOFTCAPS) {
            let bound = header.number(key)?.unwrap_or(usual);
            config.insert(key.into(), json!(bound));
        }
        windows(header, config, Some(gemmas::WINDOW), 2)?;
        scalar(header, config, 46)
    },
    write: |keys| {
        let mut own = Vec::new();
        for (key, usual) in BOUNDS.into_iter().zip(gemmas::SOFTCAPS) {
            let bound = keys.number(key, Some(usual))?;
            let bound = bound.ok_or_else(|| {
                format!("`{key}` is null, which a GGUF file of a Gemma 2 does not tell")
            })?;
            own.push((key, Written::F32(bound as f32)));
        }
        check_scalar(keys, 46)?;
        let window = keys.optional_size("sliding_window", Some(gemmas::WINDOW as u32))?;
        let pattern = pattern(keys, window, 2)?;
        // A file that says nothing of it has windows.
        own.push((WINDOW, Written::U32(window.unwrap_or(gemmas::WINDOW as u32))));
        own.extend((pattern != 2).then_some((PATTERN, Written::U32(pattern))));
        Ok(own)
    },
    ..PLAIN
};

/// Gemma 3's.
pub(super) const THIRD: Family = Family {
    read: |header, config| {
        if let Some(bound) = header.number(BOUNDS[1])? {
            config.insert(BOUNDS[1].into(), json!(bound));
        }
        let (own, usual) = gemmas::LOCAL_THETA;
        config.insert(own.into(), json!(header.number(LOCAL)?.unwrap_or(usual)));
        windows(header, config, None, gemmas::PATTERN as usize)?;
        scalar(header, config, 62)
    },
    write: |keys| {
        let mut own = Vec::new();
        if let Some(bound) = keys.number(BOUNDS[1], None)? {
            own.push((BOUNDS[1], Written::F32(bound as f32)));
        }
        check_scalar(keys, 62)?;
        let (name, usual) = gemmas::LOCAL_THETA;
        let theta = match keys.local_rope()? {
            Some(theta) => theta,
            None => keys.number(name, Some(usual))?.unwrap_or(usual),
        };
        own.extend((theta != usual).then_some((LOCAL, Written::F32(theta as f32))));
        let window = keys.optional_size("sliding_window", Some(gemmas::WINDOW as u32))?;
        let pattern = pattern(keys, window, gemmas::PATTERN as u32)?;
        if let Some(window) = window.filter(|_| pattern != 1) {
            own.push((WINDOW, Written::U32(window)));
        }
        let usual = pattern == 1 || pattern == gemmas::PATTERN as u32;
        own.extend((!usual).then_some((PATTERN, Written::U32(pattern))));
        Ok(own)
    },
    ..PLAIN
};

/// Which layers have a window: of `usual` ones all but the last, or of as many as the header says,
/// or those that it lists.
fn windows(
    header: &ModelHeader<'_>,
    config: &mut Map<String, Value>,
    window: Option<i64>,
    usual: usize,
) -> Result<(), String> {
    let (size, pattern) = (WINDOW, PATTERN);
    let window = match header.get(size) {
        None => window,
        Some(Stored::Integer(0)) => None,
        Some(_) => Some(header.size(size)?),
    };
    let layers = header.layers()?;
    let every = |n: usize| (0..layers).map(|i| n == 0 || i % n < n - 1).collect::<Vec<bool>>();
    let what = format!("a whole number, or one for each of {layers} layers");
    let sliding = match header.get(pattern) {
        None => every(usual),
        Some(Stored::Integer(n @ 0..=0xffff_ffff)) => every(*n as usize),
        Some(Stored::Numbers(each)) if each.len() == layers => {
            let slides = |value: Stored<'_>| match value {
                Stored::Flag(slides) => Ok(slides),
                Stored::Integer(n) => Ok(n != 0),
                _ => Err(header.problem(pattern, &what)),
            };
            each.iter().map(slides).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(header.problem(pattern, &what)),
    };
    let kind = |slides: &bool| match *slides && window.is_some() {
        true => "sliding_attention",
        false => "full_attention",
    };
    config.insert("layer_types".into(), sliding.iter().map(kind).collect());
    if let Some(window) = window {
        config.insert("sliding_window".into(), json!(window));
    }
    Ok(())
}

/// Of how many layers all but the last have a window; 1 where none has.
fn pattern(keys: &ModelKeys<'_>, window: Option<u32>, usual: u32) -> Result<u32, String> {
    let layers = keys.size("num_hidden_layers")?;
    let every = |n: u32| move |i: u32| i % n < n - 1;
    let sliding: Vec<bool> = match keys.texts("layer_types")? {
        _ if window.is_none() => return Ok(1),
        Some(types) => types.iter().map(|kind| *kind == "sliding_attention").collect(),
        None => {
            let usual = keys.optional_size("sliding_window_pattern", Some(usual))?.unwrap_or(usual);
            (0..layers).map(every(usual)).collect()
        }
    };
    // The usual one first: few layers may fit several.
    let fits = |n: &u32| sliding.iter().copied().eq((0..layers).map(every(*n)));
    [usual].into_iter().chain(1..=layers + 1).find(fits).ok_or_else(|| {
        "`layer_types` does not come again after some layers, each time ending with \
         `full_attention`: that is not written to GGUF files"
            .into()
    })
}

/// What scores are divided by the root of: a head's size, but in the largest model, of so many
/// layers, a head's share of the states.
fn implied(layers: i64, largest: i64, hidden: i64, heads: i64, head_dim: i64) -> i64 {
    match layers == largest {
        true => hidden / heads,
        false => head_dim,
    }
}

fn scalar(
    header: &ModelHeader<'_>,
    config: &mut Map<String, Value>,
    largest: i64,
) -> Result<(), String> {
    let hidden = header.size("embedding_length")?;
    let [heads, _] = header.heads;
    let head_dim = header.head_dim()?;
    let scalar = implied(header.size("block_count")?, largest, hidden, heads, head_dim);
    config.insert("query_pre_attn_scalar".into(), json!(scalar));
    Ok(())
}

fn check_scalar(keys: &ModelKeys<'_>, largest: i64) -> Result<(), String> {
    let (layers, hidden) = (keys.size("num_hidden_layers")?, keys.size("hidden_size")?);
    let [heads, _] = keys.heads;
    let head_dim = i64::from(keys.head_dim()?);
    let implied = implied(layers.into(), largest, hidden.into(), heads, head_dim);
    let name = "query_pre_attn_scalar";
    match keys.number(name, Some(gemmas::SCALAR))?.unwrap_or(gemmas::SCALAR) {
        scalar if scalar == implied as f64 => Ok(()),
        scalar => Err(format!(
            "`{name}` is {scalar}, which a GGUF file does not tell: it would be taken for {implied}"
        )),
    }
}
