//! Every key that can be set, with what it takes and what it does: the source of `--help`.

use super::layers::Group;
use super::settings::{ModelConfig, RunSettings, TaskConfig};
use aflora_core::adapter::MethodConfig;
use serde_json::Value;
use std::fmt::Write;

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its path with dots, as on the command line; `method.aflora.rank` is `method.rank` where
    /// the method is `aflora`.
    pub name: &'static str,
    /// The values that it takes.
    pub takes: &'static str,
    /// What it does.
    pub about: &'static str,
}

impl Key {
    /// As it is typed: without the method's name, which the chosen method settles.
    pub fn typed(&self) -> String {
        match self.name.split('.').collect::<Vec<_>>()[..] {
            ["method", _, ref rest @ ..] => format!("method.{}", rest.join(".")),
            _ => self.name.to_string(),
        }
    }
}

const fn key(name: &'static str, takes: &'static str, about: &'static str) -> Key {
    Key { name, takes, about }
}

/// All keys: first those of every run, then those of the task, the model and the methods.
pub const KEYS: &[Key] = &[
    key("task", "name, file", "what to learn: a file of tasks/"),
    key("model", "name, file", "what to adapt: a file of models/, or the folder of a model"),
    key("method", "name, file", "how: a file of methods/"),
    key("seed", "number", "decides initial values, data order and dropout"),
    key("data", "folder", "where data and models are looked for first"),
    key(
        "project",
        "folder",
        "where paths of models start, and where .assets lies; else the run file's project",
    ),
    key("run_dir", "folder", "where the run is written, or goes on; else a folder of runs/"),
    key(
        "token_cache",
        "folder",
        "tokens of large tasks are kept here for later runs, 16 GiB at most; null: nowhere",
    ),
    key("device", "auto, cpu, cuda, cuda:N", "where to compute; auto is the first GPU, if any"),
    key("precision", "auto, fp32, tf32, bf16", "of the frozen weights; auto is bf16 if it is fast"),
    key("cuda_graphs", "true, false", "record training steps and replay them, on a GPU"),
    key("threads", "number", "of a run on the CPU; else as many as there are cores"),
    key("epochs", "number", "passes over the training rows"),
    key(
        "batch_size",
        "number, auto",
        "rows of a forward and backward pass; auto: what a GPU holds",
    ),
    key("accumulate", "number", "passes whose gradients make one update"),
    key("eval_batch_size", "number", "rows of an evaluation pass"),
    key("max_length", "number", "tokens to which a text or pair is cut"),
    key("holdout", "number, null", "share of training rows to evaluate on, in place of dev"),
    key("limit", "number, null", "training rows to use, drawn with the seed"),
    key("eval_limit", "number, null", "rows of each evaluation split to use"),
    key("lr", "number", "peak learning rate of projection matrices and vectors"),
    key("vector_lr", "number, null", "peak learning rate of the vectors, where it differs"),
    key("head_lr", "number", "peak learning rate of the task head"),
    key("weight_decay", "number", "decoupled decay of projection matrices and vectors"),
    key("head_weight_decay", "number", "decoupled decay of the head's weights"),
    key("max_grad_norm", "number, null", "joint gradient norm to clip to"),
    key("warmup", "6%, 1 epoch, 100 steps", "linear rise of the rates at the start"),
    key("adamw.beta1", "number", "decay of the first moment"),
    key("adamw.beta2", "number", "decay of the second moment"),
    key("adamw.eps", "number", "added to the denominator"),
    key("log_every", "number", "steps between two recorded losses"),
    key("record_gradients", "true, false", "write the matrices' gradients, for `aflora replay`"),
    key(
        "checkpoint_every",
        "5 minutes, 200 steps, 1 epoch, never",
        "how often the run is saved, to go on from there after an interruption",
    ),
    key("max_bad_steps", "number", "in a row, without a finite loss and gradient: the run ends"),
    key("task.task", "name", "which of the built-in tasks"),
    key("task.model", "name", "the model where none is named"),
    key("task.method", "name", "the method where none is named; else aflora"),
    key("task.prompt", "text", "what the model is given; {input} is the example's input"),
    key("task.train_on_inputs", "true, false", "whether a decoder learns the prompt too"),
    key("task.max_target_length", "number", "tokens of what an encoder-decoder should write"),
    key("task.label_smoothing", "number", "share of the target spread over all tokens"),
    key(
        "task.metrics",
        "[exact_match, number_match, rouge1, rouge2, rougeL, rougeLsum]",
        "of written texts; the first decides which epoch was best",
    ),
    // Each as the model's generation_config.json has it, if null, else as the words say.
    key(
        "task.generation.max_new_tokens",
        "number, null",
        "the most tokens that are written; null: the model's own, else 128",
    ),
    key("task.generation.min_new_tokens", "number, null", "the fewest; null: the model's, else 0"),
    key(
        "task.generation.num_beams",
        "number, null",
        "texts that compete, 1 takes the likeliest token; null: the model's, else 1",
    ),
    key(
        "task.generation.length_penalty",
        "number, null",
        "above 0 favours long texts among beams; null: the model's, else 1",
    ),
    key(
        "task.generation.early_stopping",
        "heuristic, full, never, null",
        "when the search ends: full, with as many texts as beams; null: the model's, else heuristic",
    ),
    key(
        "task.generation.no_repeat_ngram_size",
        "number, null",
        "runs that come once, 0: no such rule; null: the model's, else 0",
    ),
    key("model.model", "name", "the model's name in runs and reports"),
    key("model.backbone", "name", "the code that runs it, such as bert"),
    key("model.path", "folder, null", "weights, config.json and tokenizer"),
    key("model.repo", "owner/name, null", "where it lies on the hub"),
    key("model.revision", "commit, null", "what to take from the hub"),
    key("model.weights", "pretrained, random", "what it starts from; random to try things out"),
    key("model.target_modules", "regex, [names]", "linear layers that get an adapter"),
    key("model.exclude_modules", "regex, [names]", "targets that get none after all"),
    key("model.layers", "[numbers], null", "only layers with these numbers"),
    key("model.train_modules", "[names]", "modules that train in full beside the head"),
    key("model.gradient_checkpointing", "true, false", "less memory for one more forward pass"),
    key("method.aflora.rank", "number", "of A and B"),
    key("method.aflora.alpha", "number, null", "scales the path by alpha / rank; null: by 1"),
    key("method.aflora.d_initial", "number", "every element of d at the start"),
    key("method.aflora.dropout", "number", "on the adapters' input"),
    key(
        "method.aflora.pm_trainable",
        "ffn, attention, all, none",
        "whose projection matrices train at the start",
    ),
    key("method.aflora.freeze.mode", "adaptive, never, start", "whether and when they freeze"),
    key(
        "method.aflora.freeze.rule",
        "element_quantile, matrix_rank",
        "from scores to what freezes: the released code's, the text's",
    ),
    key(
        "method.aflora.freeze.score",
        "gradient, parameter_gradient, relative_gradient",
        "|g|, |p·g|, |g/p|",
    ),
    key("method.aflora.freeze.beta1", "number", "smoothing of the sensitivity (Eq. 3)"),
    key("method.aflora.freeze.beta2", "number", "smoothing of the uncertainty (Eq. 4)"),
    key("method.aflora.freeze.t_i", "1 epoch, 5%, 100 steps", "before it nothing freezes"),
    key("method.aflora.freeze.t_f", "70%, 14 epochs", "in this last span all is frozen"),
    key("method.aflora.freeze.interval", "number", "steps between two tests, and score window"),
    key("method.aflora.freeze.curve", "ease_out, ease_in", "the shape of r(t) (Eq. 5)"),
    key("method.aflora.freeze.exponent", "number", "the curve's exponent"),
    key("method.lora.rank", "number", "of A and B"),
    key("method.lora.alpha", "number", "the path is scaled by alpha / rank"),
    key("method.lora.rslora", "true, false", "scale by alpha / √rank instead"),
    key("method.lora.dropout", "number", "on the adapters' input"),
    key("method.dora.rank", "number", "of A and B"),
    key("method.dora.alpha", "number", "the path is scaled by alpha / rank"),
    key("method.dora.rslora", "true, false", "scale by alpha / √rank instead"),
    key("method.dora.dropout", "number", "on the adapters' input"),
    key("method.elora.rank", "number", "of A and B"),
    key("method.elora.d_initial", "number", "every element of d at the start"),
    key("method.elora.dropout", "number", "on the adapters' input"),
    key("method.elora.shared", "true, false", "one pair A, B for all layers, or one each"),
    key("method.elora.projection_seed", "number", "draws the shared pair, as PEFT does"),
    key("method.adalora.rank", "number", "of every layer at the start"),
    key("method.adalora.target_rank", "number", "on average at the end"),
    key("method.adalora.alpha", "number", "the path is scaled by alpha / rank"),
    key("method.adalora.dropout", "number", "on the adapters' input"),
    key("method.adalora.orthogonal", "number", "weight of the orthogonality penalty"),
    key("method.adalora.t_i", "10%, 600 steps", "before it the budget is whole"),
    key("method.adalora.t_f", "40%, 1800 steps", "in this last span it is at its target"),
    key("method.adalora.interval", "number", "steps between two allocations"),
    key("method.adalora.beta1", "number", "smoothing of the sensitivity"),
    key("method.adalora.beta2", "number", "smoothing of the uncertainty"),
    key("method.sora.rank", "number", "at the start; gates at zero lower it"),
    key("method.sora.alpha", "number", "the path is scaled by alpha / rank"),
    key("method.sora.dropout", "number", "on the adapters' input"),
    key("method.sora.sparse_lambda", "number", "weight of the gates' mean size in the loss"),
    key("method.sora.threshold", "number", "what a gate shrinks by after each update"),
    key("method.aflora_rank.rank", "number", "components a layer at the start"),
    key("method.aflora_rank.target_rank", "number", "on average at the end"),
    key("method.aflora_rank.alpha", "number, null", "scales the path by alpha / rank; null: by 1"),
    key("method.aflora_rank.d_initial", "number", "every element of d at the start"),
    key("method.aflora_rank.dropout", "number", "on the adapters' input"),
    key(
        "method.aflora_rank.pm_trainable",
        "ffn, attention, all, none",
        "whose projection matrices train at the start",
    ),
    key("method.aflora_rank.freeze.mode", "adaptive, never, start", "whether and when they freeze"),
    key("method.aflora_rank.freeze.rule", "matrix_rank", "has no say: components freeze by rank"),
    key("method.aflora_rank.freeze.score", "gradient", "has no say: |g| freezes, |d·g| leaves"),
    key("method.aflora_rank.freeze.beta1", "number", "smoothing of the sensitivity (Eq. 3)"),
    key("method.aflora_rank.freeze.beta2", "number", "smoothing of the uncertainty (Eq. 4)"),
    key("method.aflora_rank.freeze.t_i", "1 epoch, 100 steps", "before it nothing freezes"),
    key("method.aflora_rank.freeze.t_f", "70%, 14 epochs", "in this last span all is frozen"),
    key("method.aflora_rank.freeze.interval", "number", "steps between two tests"),
    key("method.aflora_rank.freeze.curve", "ease_out, ease_in", "the shape of r(t) (Eq. 5)"),
    key("method.aflora_rank.freeze.exponent", "number", "the curve's exponent"),
];

/// Every key on a line of its own: name, values, default, and what it does.
///
/// Keys of blocks stand as they are typed; a heading names the method that knows them.
pub fn table() -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        let (parts, typed) = (key.name.split('.').collect::<Vec<_>>(), key.typed());
        let heading = match parts[..] {
            ["method", method, ..] => method,
            [block @ ("task" | "model"), _, ..] => block,
            _ => "every run",
        };
        if heading != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{heading}");
            section = heading;
        }
        let default = default_of(key.name).map_or(String::new(), |d| format!(" [{d}]"));
        let _ = writeln!(out, "  {typed:24} {}{default} ({})", key.about, key.takes);
    }
    out
}

/// The built-in default of a key, if it has one.
fn default_of(name: &str) -> Option<String> {
    let (_, value) = defaults().into_iter().find(|(key, _)| key == name)?;
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(text),
        Value::Array(items) if items.is_empty() => None,
        other => Some(other.to_string()),
    }
}

/// Every key of the settings themselves with its default: what the table must hold.
fn defaults() -> Vec<(String, Value)> {
    let mut out = Vec::new();
    leaves("", RunSettings::default(), &mut out);
    leaves("task.", TaskConfig::default(), &mut out);
    leaves("model.", ModelConfig::default(), &mut out);
    for (name, method) in
        MethodConfig::NAMES.iter().filter_map(|n| Some((n, MethodConfig::defaults(n)?)))
    {
        let prefix = format!("method.{name}.");
        leaves(&prefix, method, &mut out);
        out.retain(|(key, _)| *key != format!("{prefix}method"));
    }
    out
}

fn leaves(prefix: &str, group: impl Group, out: &mut Vec<(String, Value)>) {
    fn walk(path: String, value: Value, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) => {
                let path = if path.is_empty() || path.ends_with('.') { path } else { path + "." };
                map.into_iter().for_each(|(key, value)| walk(format!("{path}{key}"), value, out));
            }
            value => out.push((path, value)),
        }
    }
    walk(prefix.to_string(), serde_json::to_value(group).unwrap_or_default(), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_holds_every_key_that_can_be_set_and_no_other() {
        let listed: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_string()).collect();
        assert_eq!(listed.len(), KEYS.len(), "a key stands twice");
        let blocks = super::super::blocks::BLOCKS.map(str::to_string);
        let real: BTreeSet<String> =
            defaults().into_iter().map(|(key, _)| key).chain(blocks).collect();
        assert_eq!(listed, real);
    }

    #[test]
    fn the_text_shows_keys_as_they_are_typed_with_their_defaults() {
        let text = table();
        for part in
            ["\naflora\n", "  method.freeze.rule ", " [element_quantile] ", "  seed ", " [42] "]
        {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
