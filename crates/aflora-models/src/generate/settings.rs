//! How tokens are chosen; names and meanings are those of transformers' `GenerationConfig`.

use aflora_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// When a search with several beams ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// When no running beam would beat a finished one at its present length.
    #[default]
    Heuristic,
    /// As soon as there are as many finished texts as beams.
    Full,
    /// When no running beam could beat a finished one at any length.
    Never,
}

/// How text is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// The most tokens that are written.
    pub max_new_tokens: usize,
    /// The fewest: a text cannot end before.
    pub min_new_tokens: usize,
    /// Texts that compete for the best; 1 takes the likeliest token each time.
    pub num_beams: usize,
    /// A finished text's score is its log-probability over its length to this power: above 0
    /// favours long texts.
    pub length_penalty: f64,
    /// When the search ends.
    pub early_stopping: EarlyStopping,
    /// Runs of so many tokens come once at most; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        GenerationConfig {
            max_new_tokens: 128,
            min_new_tokens: 0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            no_repeat_ngram_size: 0,
        }
    }
}

/// How text is written, as far as a file says: [`GenerationConfig`] without what is not said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct GenerationSettings {
    /// The most tokens that are written; null: the model's own, else 128.
    pub max_new_tokens: Option<usize>,
    /// The fewest: a text cannot end before; null: the model's own, else 0.
    pub min_new_tokens: Option<usize>,
    /// Texts that compete, 1 takes the likeliest token each time; null: the model's own, else 1.
    pub num_beams: Option<usize>,
    /// Above 0 favours long texts among beams; null: the model's own, else 1.
    ///
    /// See [`GenerationConfig::length_penalty`].
    pub length_penalty: Option<f64>,
    /// When the search ends: full, with as many texts as beams; null: the model's own, else
    /// heuristic.
    ///
    /// See [`EarlyStopping`].
    pub early_stopping: Option<EarlyStopping>,
    /// Runs of so many tokens come once at most, 0: no such rule; null: the model's own, else 0.
    pub no_repeat_ngram_size: Option<usize>,
}

impl GenerationSettings {
    /// What is said here, else in `model`, else the default.
    ///
    /// A least number of tokens that the model's file asks for gives way to a smaller greatest one
    /// that is said here, as it does in transformers.
    pub fn over(&self, model: &GenerationSettings) -> GenerationConfig {
        let plain = GenerationConfig::default();
        let max_new_tokens =
            self.max_new_tokens.or(model.max_new_tokens).unwrap_or(plain.max_new_tokens);
        let least = model.min_new_tokens.map(|least| least.min(max_new_tokens));
        GenerationConfig {
            max_new_tokens,
            min_new_tokens: self.min_new_tokens.or(least).unwrap_or(plain.min_new_tokens),
            num_beams: self.num_beams.or(model.num_beams).unwrap_or(plain.num_beams),
            length_penalty: self
                .length_penalty
                .or(model.length_penalty)
                .unwrap_or(plain.length_penalty),
            early_stopping: self
                .early_stopping
                .or(model.early_stopping)
                .unwrap_or(plain.early_stopping),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .or(model.no_repeat_ngram_size)
                .unwrap_or(plain.no_repeat_ngram_size),
        }
    }

    /// Checks the range of all that is said.
    ///
    /// # Errors
    /// A setting is out of its range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let mut config = self.over(&GenerationSettings::default());
        if self.max_new_tokens.is_none() {
            config.max_new_tokens = config.max_new_tokens.max(config.min_new_tokens);
        }
        config.validate()
    }
}

impl GenerationConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A setting is out of its range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let check = |field: &'static str, value: String, ok: bool, expected: &'static str| {
            if ok {
                Ok(())
            } else {
                Err(Error::Setting { field, value, expected: expected.into() })
            }
        };
        let most = 1_000_000;
        let new = self.max_new_tokens;
        check("max_new_tokens", new.to_string(), (1..=most).contains(&new), "1 to 1000000")?;
        let least = self.min_new_tokens;
        check("min_new_tokens", least.to_string(), least <= new, "at most max_new_tokens")?;
        let beams = self.num_beams;
        check("num_beams", beams.to_string(), (1..=1000).contains(&beams), "1 to 1000")?;
        let penalty = self.length_penalty;
        check("length_penalty", penalty.to_string(), penalty.is_finite(), "a finite number")?;
        let size = self.no_repeat_ngram_size;
        check("no_repeat_ngram_size", size.to_string(), size <= most, "at most 1000000")
    }
}
