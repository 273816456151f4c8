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
    /// What the scores of tokens that were there before are divided by, or multiplied with where they
    /// are negative; 1 for no such rule (Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>).
    pub repetition_penalty: f64,
    /// Whether tokens are drawn by their probability, and not the likeliest taken. What follows is
    /// for drawing alone.
    pub do_sample: bool,
    /// What scores are divided by before tokens are drawn: below 1 favours the likely ones.
    pub temperature: f64,
    /// So many of the likeliest tokens are drawn from; 0 for all of them.
    pub top_k: usize,
    /// The likeliest tokens that together have this probability are drawn from (Holtzman et al. 2019,
    /// <https://arxiv.org/abs/1904.09751>).
    pub top_p: f64,
    /// Tokens are drawn that have this share of the likeliest one's probability at least (Nguyen et
    /// al. 2024, <https://arxiv.org/abs/2407.01082>).
    pub min_p: f64,
    /// Decides what is drawn.
    pub seed: u64,
    /// Tokens that end a text beside those of the model's files, such as what ends a turn of a
    /// conversation.
    pub further_eos: Vec<i64>,
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
            repetition_penalty: 1.0,
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            further_eos: Vec::new(),
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
    /// Above 1 makes tokens rarer that were there before, prompt and all; null: the model's own,
    /// else 1.
    ///
    /// See [`GenerationConfig::repetition_penalty`].
    pub repetition_penalty: Option<f64>,
    /// Whether tokens are drawn, and not the likeliest taken; null: false, whatever the model's files
    /// say.
    pub do_sample: Option<bool>,
    /// For drawing: below 1 favours likely tokens; null: the model's own, else 1.
    pub temperature: Option<f64>,
    /// For drawing: from so many of the likeliest tokens, 0: from all; null: the model's own, else 50.
    pub top_k: Option<usize>,
    /// For drawing: from the likeliest tokens with this probability together; null: the model's own,
    /// else 1.
    pub top_p: Option<f64>,
    /// For drawing: from tokens with this share of the likeliest one's probability; null: the
    /// model's own, else 0.
    pub min_p: Option<f64>,
    /// For drawing: decides what is drawn; null: 0.
    pub seed: Option<u64>,
}

/// The settings that only count where tokens are drawn.
pub const FOR_SAMPLING: [&str; 5] = ["temperature", "top_k", "top_p", "min_p", "seed"];

impl GenerationSettings {
    /// What is said here, else in `model`, else the default.
    ///
    /// A least number of tokens that the model's file asks for gives way to a smaller greatest one
    /// that is said here, as it does in transformers. Tokens are only drawn where it is said here;
    /// the number of beams is then 1 unless it is, too.
    pub fn over(&self, model: &GenerationSettings) -> GenerationConfig {
        let plain = GenerationConfig::default();
        let max_new_tokens =
            self.max_new_tokens.or(model.max_new_tokens).unwrap_or(plain.max_new_tokens);
        let do_sample = self.do_sample.unwrap_or(plain.do_sample);
        let said = self.or(&GenerationSettings {
            min_new_tokens: model.min_new_tokens.map(|least| least.min(max_new_tokens)),
            num_beams: model.num_beams.filter(|_| !do_sample),
            ..model.clone()
        });
        GenerationConfig {
            max_new_tokens,
            min_new_tokens: said.min_new_tokens.unwrap_or(plain.min_new_tokens),
            num_beams: said.num_beams.unwrap_or(plain.num_beams),
            length_penalty: said.length_penalty.unwrap_or(plain.length_penalty),
            early_stopping: said.early_stopping.unwrap_or(plain.early_stopping),
            no_repeat_ngram_size: said.no_repeat_ngram_size.unwrap_or(plain.no_repeat_ngram_size),
            repetition_penalty: said.repetition_penalty.unwrap_or(plain.repetition_penalty),
            do_sample,
            temperature: said.temperature.unwrap_or(plain.temperature),
            top_k: said.top_k.unwrap_or(plain.top_k),
            top_p: said.top_p.unwrap_or(plain.top_p),
            min_p: said.min_p.unwrap_or(plain.min_p),
            seed: self.seed.unwrap_or(plain.seed),
            further_eos: Vec::new(),
        }
    }

    /// What is said here, else in `other`, whose least number of tokens gives way to a smaller greatest
    /// one that is said here.
    pub fn or(&self, other: &GenerationSettings) -> GenerationSettings {
        let most = self.max_new_tokens.unwrap_or(usize::MAX);
        let fewest = other.min_new_tokens.map(|fewest| fewest.min(most));
        GenerationSettings {
            max_new_tokens: self.max_new_tokens.or(other.max_new_tokens),
            min_new_tokens: self.min_new_tokens.or(fewest),
            num_beams: self.num_beams.or(other.num_beams),
            length_penalty: self.length_penalty.or(other.length_penalty),
            early_stopping: self.early_stopping.or(other.early_stopping),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(other.no_repeat_ngram_size),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
            do_sample: self.do_sample.or(other.do_sample),
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            min_p: self.min_p.or(other.min_p),
            seed: self.seed.or(other.seed),
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
        check("no_repeat_ngram_size", size.to_string(), size <= most, "at most 1000000")?;
        let positive = |number: f64| number > 0.0 && number.is_finite();
        let penalty = self.repetition_penalty;
        check("repetition_penalty", penalty.to_string(), positive(penalty), "above 0")?;
        let temperature = self.temperature;
        let words =
            "above 0; the likeliest token is taken where nothing is drawn (do_sample: false)";
        check("temperature", temperature.to_string(), positive(temperature), words)?;
        let share = |number: f64| (0.0..=1.0).contains(&number);
        check("top_p", self.top_p.to_string(), share(self.top_p), "0 to 1")?;
        check("min_p", self.min_p.to_string(), share(self.min_p), "0 to 1")?;
        let one = beams == 1 || !self.do_sample;
        check("num_beams", beams.to_string(), one, "1 where tokens are drawn (do_sample: true)")
    }
}
