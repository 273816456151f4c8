//! How tokens are chosen; names and meanings are those of transformers' `GenerationConfig`.

use aflora_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// When a search with several beams ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl GenerationConfig {
    /// Checks every range.
    pub fn validate(&self) -> Result<()> {
        let check = |field: &'static str, value: String, ok: bool, expected: &'static str| {
            if ok {
                Ok(())
            } else {
                Err(Error::Setting { field, value, expected })
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
