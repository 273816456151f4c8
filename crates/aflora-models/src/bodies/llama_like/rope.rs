//! How a config.json says that queries and keys turn: `rope_parameters`, or the older `rope_theta`
//! and `rope_scaling`.

use crate::config_file::ConfigFile;
use crate::nn::rotary::{powers, Frequencies};
use crate::Result;
use serde_json::{Map, Value};
use std::f64::consts::PI;

pub(super) use crate::nn::rotary::Rope;

/// A rope's keys.
pub(super) type Keys<'a> = Option<&'a Map<String, Value>>;

/// A family's names for what ropes are made of, and what it means where it is silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeKeys {
    /// θ, outside of the rope's own keys, where it is `rope_theta`.
    pub theta: (&'static str, f64),
    /// The share of a head's elements that turn, outside of the rope's own keys, where it is
    /// `partial_rotary_factor`; none where all of them must.
    pub share: Option<(&'static str, f64)>,
    /// The length of the texts of pretraining.
    pub original: Option<i64>,
    /// The names of LongRoPE.
    pub longrope: &'static [&'static str],
}

impl RopeKeys {
    pub const LLAMA: RopeKeys = RopeKeys {
        theta: ("rope_theta", 10_000.0),
        share: None,
        original: None,
        longrope: &["longrope"],
    };
}

/// The keys of the rope of a file that has one for all layers.
///
/// Where a file has more than one of the objects, transformers goes by `rope_scaling` first, and
/// by the `rope_theta` in what it goes by.
///
/// # Errors
/// It has one for each type of layer.
pub(super) fn keys(file: &ConfigFile) -> Result<Keys<'_>> {
    let object = |key: &str| file.object(key).filter(|object| !object.is_empty());
    let (old, new) = (object("rope_scaling"), object("rope_parameters"));
    if let (Some(old), Some(new)) = (old, new) {
        if old != new {
            let [old, new] = [old, new].map(|keys| Value::from(keys.clone()));
            file.warn(&format!(
                "`rope_scaling` is {old}, but `rope_parameters`, its newer name, is {new}: \
                 `rope_scaling` counts, as in transformers"
            ));
        }
    }
    let name = if old.is_some() { "rope_scaling" } else { "rope_parameters" };
    let keys = old.or(new);
    for layers in ["full_attention", "sliding_attention"] {
        if keys.is_some_and(|keys| keys.contains_key(layers)) {
            let problem = "a rope for each type of layer is not built for this model_type";
            return Err(file.problem(format!("`{name}` has `{layers}`: {problem}")));
        }
    }
    if let Some((inner, outer)) =
        keys.and_then(|s| s.get("rope_theta")).zip(file.keys().get("rope_theta"))
    {
        if inner != outer && !inner.is_null() && !outer.is_null() {
            file.warn(&format!(
                "`rope_theta` is {outer}, but {inner} within `{name}`: the latter counts, as in \
                 transformers"
            ));
        }
    }
    Ok(keys)
}

/// The rope of heads of `head_dim` elements of which `keys` tell, in a model of `max_positions`.
///
/// # Errors
/// A key is missing, of another type, or asks for what is not built.
pub(super) fn read(
    file: &ConfigFile,
    keys: Keys,
    names: &RopeKeys,
    head_dim: i64,
    max_positions: i64,
) -> Result<Rope> {
    let reader = Reader { file, keys };
    let theta = reader.number("rope_theta", names.theta)?;
    let size = reader.turning(names, head_dim)?;
    if theta <= 0.0 {
        return Err(file.problem(format!("`{}` is {theta}, which must be positive", names.theta.0)));
    }
    let original = || -> Result<f64> {
        let outer = file.integer("original_max_position_embeddings", 0)?;
        let inner = reader.optional("original_max_position_embeddings")?;
        let original = Some(outer as f64).filter(|n| *n > 0.0).or(names.original.map(|n| n as f64));
        Ok(original.or(inner).unwrap_or(max_positions as f64))
    };
    let factor = || reader.positive("factor");
    let kind = reader.get("rope_type").or_else(|| reader.get("type")).and_then(Value::as_str);
    match kind.unwrap_or("default") {
        "default" => Ok(Rope::fixed(powers(theta, size))),
        kind if names.longrope.contains(&kind) => {
            let original = original()?;
            reader.longrope(theta, size, original, max_positions as f64 / original)
        }
        "linear" => {
            let factor = factor()?;
            Ok(Rope::fixed(powers(theta, size).into_iter().map(|f| f / factor).collect()))
        }
        "dynamic" => {
            let factor = factor()?;
            if size < 4 {
                let problem = "the rotary scaling `dynamic` needs at least 4 turned elements";
                return Err(file.problem(problem.into()));
            }
            let frequencies = Frequencies::Dynamic { theta, size, factor, original: max_positions };
            Ok(Rope { frequencies, amplitude: 1.0 })
        }
        "yarn" => reader.yarn(theta, size, original()?, max_positions as f64),
        "llama3" => {
            let factor = factor()?;
            let (low, high) =
                (reader.positive("low_freq_factor")?, reader.positive("high_freq_factor")?);
            let original = original()?;
            if high <= low {
                return Err(file.problem("`high_freq_factor` must exceed `low_freq_factor`".into()));
            }
            let stretched = |f| llama3(f, factor, low, high, original);
            Ok(Rope::fixed(powers(theta, size).into_iter().map(stretched).collect()))
        }
        other => Err(file.problem(format!(
            "the rotary scaling `{other}` is not built; `default`, `linear`, `dynamic`, `yarn`, \
             `longrope` and `llama3` are"
        ))),
    }
}

/// The longest text of a model of `max_positions` that turns by `ropes`.
pub(super) fn reach(ropes: &[Rope], max_positions: i64) -> i64 {
    let stretch = ropes.iter().map(|rope| match rope.frequencies {
        Frequencies::Dynamic { factor, .. } => factor,
        Frequencies::Fixed(_) | Frequencies::ByLength { .. } => 1.0,
    });
    (stretch.fold(1.0, f64::max) * max_positions as f64) as i64
}

/// A rope's keys, with the file that they are of.
struct Reader<'a> {
    file: &'a ConfigFile,
    keys: Keys<'a>,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.and_then(|keys| keys.get(key)).filter(|value| !value.is_null())
    }

    fn optional(&self, key: &str) -> Result<Option<f64>> {
        let number = |value: &Value| {
            value.as_f64().ok_or_else(|| self.file.problem(format!("`{key}` is no number")))
        };
        self.get(key).map(number).transpose()
    }

    /// `key` among the rope's own, else `outer` beside them, else the latter's usual value.
    fn number(&self, key: &str, (outer, usual): (&str, f64)) -> Result<f64> {
        match self.optional(key)? {
            Some(number) => Ok(number),
            None => self.file.number(outer, usual),
        }
    }

    fn positive(&self, key: &str) -> Result<f64> {
        let number = self.get(key).and_then(Value::as_f64).filter(|x| *x > 0.0);
        number
            .ok_or_else(|| self.file.problem(format!("the rotary scaling has no positive `{key}`")))
    }

    /// How many elements of a head turn.
    fn turning(&self, names: &RopeKeys, head_dim: i64) -> Result<i64> {
        let key = "partial_rotary_factor";
        let share = self.number(key, names.share.unwrap_or((key, 1.0)))?;
        if names.share.is_none() && share != 1.0 {
            let problem = "which is not built for this model_type";
            return Err(self.file.problem(format!("`{key}` is {share}, {problem}")));
        }
        let size = (head_dim as f64 * share) as i64;
        if size < 2 || size % 2 != 0 || size > head_dim {
            let name = names.share.map_or(key, |(name, _)| name);
            return Err(self.file.problem(format!(
                "`{name}` is {share}: of a head's {head_dim} elements {size} would turn, which \
                 must be an even number up to all"
            )));
        }
        Ok(size)
    }

    /// LongRoPE (Ding et al. 2024).
    fn longrope(&self, theta: f64, size: i64, original: f64, stretch: f64) -> Result<Rope> {
        let divided = |key: &str| -> Result<Vec<f64>> {
            let list = self.get(key).and_then(Value::as_array);
            let list: Option<Vec<f64>> =
                list.and_then(|list| list.iter().map(Value::as_f64).collect());
            let list = list.filter(|list| list.len() as i64 == size / 2);
            let list = list.filter(|list| list.iter().all(|x| *x > 0.0)).ok_or_else(|| {
                self.file.problem(format!(
                    "`{key}` of the rotary scaling must be {} positive numbers",
                    size / 2
                ))
            })?;
            Ok(powers(theta, size).into_iter().zip(list).map(|(f, by)| f / by).collect())
        };
        let factor = self.optional("factor")?.unwrap_or(stretch);
        let given = self.optional("attention_factor")?;
        let amplitude = given.unwrap_or_else(|| longrope_amplitude(factor, original));
        let (short, long) = (divided("short_factor")?, divided("long_factor")?);
        let frequencies = Frequencies::ByLength { short, long, original: original as i64 };
        Ok(Rope { frequencies, amplitude })
    }

    /// YaRN (Peng et al. 2023): waves that turn fewer than `beta_slow` times within the texts of
    /// pretraining are stretched, those that turn more than `beta_fast` times are left.
    fn yarn(&self, theta: f64, size: i64, original: f64, longest: f64) -> Result<Rope> {
        let factor = match self.optional("factor")? {
            Some(_) => self.positive("factor")?,
            None => longest / original,
        };
        let truncated = match self.get("truncate") {
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.file.problem("`truncate` is neither true nor false".into()))?,
            None => true,
        };
        let nonzero = |key: &str, usual: f64| -> Result<f64> {
            Ok(self.optional(key)?.filter(|number| *number != 0.0).unwrap_or(usual))
        };
        // The element whose wave turns so many times.
        let turning =
            |times: f64| size as f64 * (original / (times * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (low, high) =
            (turning(nonzero("beta_fast", 32.0)?), turning(nonzero("beta_slow", 1.0)?));
        let (low, high) = if truncated { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, mut high) = (low.max(0.0), high.min(size as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let stretched = |(i, f): (usize, f64)| {
            let share = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f / factor * share + f * (1.0 - share)
        };
        let frequencies = powers(theta, size).into_iter().enumerate().map(stretched).collect();
        let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        let (all, one) = (nonzero("mscale_all_dim", 0.0)?, nonzero("mscale", 0.0)?);
        let amplitude = match self.optional("attention_factor")? {
            Some(given) => given,
            None if all != 0.0 && one != 0.0 => scale(one) / scale(all),
            None => scale(1.0),
        };
        Ok(Rope { frequencies: Frequencies::Fixed(frequencies), amplitude })
    }
}

/// What LongRoPE multiplies queries and keys by, where texts are `factor` times as long as the
/// `original` ones of pretraining.
pub(crate) fn longrope_amplitude(factor: f64, original: f64) -> f64 {
    match factor > 1.0 {
        true => (1.0 + factor.ln() / original.ln()).sqrt(),
        false => 1.0,
    }
}

/// Long waves are stretched by `factor`, short ones left, those between blended (Grattafiori et
/// al. 2024).
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * PI / frequency;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let share = (original / wavelength - low) / (high - low);
        (1.0 - share) * frequency / factor + share * frequency
    }
}
