//! Every key that can be set, with what it takes, its default, its range and what it does.
//!
//! Nothing is declared here: the [types](super::schema) of the settings declare their keys, and
//! [`help`](super::help) makes texts of this list.

use super::blocks;
use super::own_data::OwnData;
use super::run_settings::RunSettings;
use super::schema::{of, of_variants, Key};
use super::settings::ModelConfig;
use crate::feed::Source;
use crate::task::TaskSpec;
use aflora_core::adapter::MethodConfig;
use std::sync::LazyLock;

/// All keys: first those that name blocks, then those of every run, the task, the model and the
/// methods.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let below = |prefix: &str, keys: Vec<Key>| {
        let prefix = prefix.to_string();
        keys.into_iter().map(move |key| Key { name: format!("{prefix}{}", key.name), ..key })
    };
    let method = |name: &str| {
        let method = MethodConfig::defaults(name).map(serde_json::to_value);
        method.and_then(Result::ok).unwrap_or_default()
    };
    let mut keys = blocks::keys();
    keys.extend(of::<OwnData>());
    keys.extend(of::<RunSettings>());
    keys.extend(below("task.", of::<TaskSpec>()));
    keys.extend(below("task.dataset.sources.NAME.", of::<Source>()));
    keys.extend(below("model.", of::<ModelConfig>()));
    keys.extend(below("method.", of_variants::<MethodConfig>("method", method)));
    keys
});

#[cfg(test)]
mod tests {
    use super::super::schema::out_of_range;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_stands_once_and_says_what_it_does_and_takes() {
        let names: BTreeSet<&str> = KEYS.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names.len(), KEYS.len(), "a key stands twice");
        for key in KEYS.iter() {
            assert!(key.about.len() > 3 && !key.about.contains('`'), "{key:?}");
            assert!(!key.takes.is_empty() && !key.takes.contains("object"), "{key:?}");
        }
        for name in ["seed", "adamw.beta1", "model.layers", "method.aflora.freeze.t_i"] {
            assert!(names.contains(name), "{name} is missing");
        }
    }

    #[test]
    fn what_a_key_takes_follows_from_its_type() {
        let takes = |name: &str| {
            KEYS.iter()
                .find(|key| key.name == name)
                .map(|key| key.takes.clone())
                .unwrap_or_default()
        };
        for (name, expected) in [
            ("epochs", "number"),
            ("threads", "number, null"),
            ("cuda_graphs", "true, false"),
            ("precision", "auto, fp32, tf32, bf16, nf4, nf4_nested, int8, int8_dynamic, fp8"),
            ("device", "auto, cpu, cuda, cuda:N"),
            ("batch_size", "number, auto"),
            ("warmup", "1 epoch, 70%, 100 steps"),
            ("model.target_modules", "regex, [names]"),
            ("model.layers", "[number], null"),
            ("method.aflora.pm_trainable", "ffn, attention, all, none"),
            (
                "method.aflora.freeze.rule",
                "element_quantile, matrix_rank, net_motion, expected_gain, own_peak, random",
            ),
            ("task.generation.early_stopping", "heuristic, full, never, null"),
        ] {
            assert_eq!(takes(name), expected, "{name}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_told_with_what_is_right() {
        let keys = of::<RunSettings>();
        let told = |settings: RunSettings| {
            out_of_range(&keys, &settings).into_iter().map(|(_, words)| words).collect::<Vec<_>>()
        };
        assert_eq!(told(RunSettings::default()), Vec::<String>::new());
        let settings = RunSettings { epochs: 0, holdout: Some(1.0), ..RunSettings::default() };
        assert_eq!(
            told(settings),
            [
                "`epochs` is 0, but must be at least 1",
                "`holdout` is 1.0, but must be above 0 and below 1, or null",
            ]
        );
    }
}
