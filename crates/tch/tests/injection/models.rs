//! rust-bert's models, tiny and random.

use aflora_core::nn::{self, Module, Path};
use rust_bert::albert::{AlbertConfig, AlbertForSequenceClassification};
use rust_bert::bart::{BartConfig, BartForSequenceClassification};
use rust_bert::bert::{BertConfig, BertForSequenceClassification};
use rust_bert::deberta::{DebertaConfig, DebertaForSequenceClassification};
use rust_bert::deberta_v2::{DebertaV2Config, DebertaV2ForSequenceClassification};
use rust_bert::distilbert::{DistilBertConfig, DistilBertModelClassifier};
use rust_bert::electra::{ElectraConfig, ElectraModel};
use rust_bert::gpt2::{GPT2LMHeadModel, Gpt2Config};
use rust_bert::gpt_j::{GptJConfig, GptJLMHeadModel};
use rust_bert::gpt_neo::{GptNeoConfig, GptNeoForCausalLM};
use rust_bert::pipelines::generation_utils::Cache;
use rust_bert::roberta::RobertaForSequenceClassification;
use rust_bert::t5::{T5Config, T5ForConditionalGeneration};
use serde::de::DeserializeOwned;
use serde_json::{json, Value};
use tch::{Kind, Tensor};

/// The token that ends a text, which BART reads its answer at.
pub const EOS: i64 = 2;

/// Logits `[rows, classes or tokens]` of ids `[rows, length]`; with dropout, if it trains.
pub type Logits = Box<dyn Fn(&Tensor, bool) -> Tensor>;

/// A model of rust-bert's, and where its adapters go.
pub struct Model {
    pub name: &'static str,
    pub build: fn(&Path) -> Logits,
    /// A regular expression of the layers that take an adapter.
    pub targets: &'static str,
    /// The modules that train in full.
    pub head: &'static [&'static str],
}

const BERT_LAYERS: &str = r".*\.encoder\.layer\.\d+\..*";
const GPT_LAYERS: &str = r"transformer\.h\..*";

fn model(
    name: &'static str,
    build: fn(&Path) -> Logits,
    targets: &'static str,
    head: &'static [&'static str],
) -> Model {
    Model { name, build, targets, head }
}

/// All that take adapters by their slots.
pub fn models() -> Vec<Model> {
    vec![
        model("BERT", bert, BERT_LAYERS, &["classifier"]),
        model("RoBERTa", roberta, BERT_LAYERS, &["classifier"]),
        model(
            "DistilBERT",
            distilbert,
            r".*\.transformer\.layer\..*",
            &["classifier", "pre_classifier"],
        ),
        model("ELECTRA", electra, BERT_LAYERS, &["classifier"]),
        // Not `attention.dense`, of which rust-bert reads the weight by itself.
        model("ALBERT", albert, r".*\.(query|key|value|ffn|ffn_output)", &["classifier"]),
        // Not `in_proj`, which is a type of rust-bert's own.
        model("DeBERTa", deberta, BERT_LAYERS, &["classifier", "pooler"]),
        model("DeBERTa-v2", deberta_v2, BERT_LAYERS, &["classifier", "pooler"]),
        model("BART", bart, r"model\.(encoder|decoder)\.layers\..*", &["classification_head"]),
        model("GPT-Neo", gpt_neo, GPT_LAYERS, &[]),
        model("GPT-J", gpt_j, GPT_LAYERS, &["lm_head"]),
        model("T5", t5, r"(encoder|decoder)\.block\..*", &[]),
    ]
}

fn config<C: DeserializeOwned>(keys: Value) -> C {
    serde_json::from_value(keys).unwrap()
}

fn bert_keys() -> Value {
    json!({
        "hidden_act": "gelu", "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0,
        "hidden_size": 16, "initializer_range": 0.02, "intermediate_size": 24,
        "max_position_embeddings": 24, "num_attention_heads": 2, "num_hidden_layers": 2,
        "type_vocab_size": 1, "vocab_size": 30, "pad_token_id": 1,
        "id2label": { "0": "a", "1": "b" },
    })
}

fn with(keys: Value, more: Value) -> Value {
    let (Value::Object(mut keys), Value::Object(more)) = (keys, more) else { unreachable!() };
    keys.extend(more);
    keys.into()
}

fn bert(p: &Path) -> Logits {
    let config: BertConfig = config(bert_keys());
    let model = BertForSequenceClassification::new(p, &config).unwrap();
    Box::new(move |ids, train| model.forward_t(Some(ids), None, None, None, None, train).logits)
}

fn roberta(p: &Path) -> Logits {
    let config: BertConfig = config(bert_keys());
    let model = RobertaForSequenceClassification::new(p, &config).unwrap();
    Box::new(move |ids, train| model.forward_t(Some(ids), None, None, None, None, train).logits)
}

fn distilbert(p: &Path) -> Logits {
    let config: DistilBertConfig = config(json!({
        "activation": "gelu", "attention_dropout": 0.0, "dim": 16, "dropout": 0.0,
        "hidden_dim": 24, "initializer_range": 0.02, "max_position_embeddings": 24, "n_heads": 2,
        "n_layers": 2, "qa_dropout": 0.0, "seq_classif_dropout": 0.0,
        "sinusoidal_pos_embds": false, "tie_weights_": true, "vocab_size": 30,
        "id2label": { "0": "a", "1": "b" },
    }));
    let model = DistilBertModelClassifier::new(p, &config).unwrap();
    Box::new(move |ids, train| model.forward_t(Some(ids), None, None, train).unwrap().logits)
}

/// Its body with a head of the user's own.
fn electra(p: &Path) -> Logits {
    let config: ElectraConfig = config(with(bert_keys(), json!({ "embedding_size": 8 })));
    let body = ElectraModel::new(p / "electra", &config);
    let head = nn::linear(p / "classifier", 16, 2, Default::default());
    Box::new(move |ids, train| {
        let states = body.forward_t(Some(ids), None, None, None, None, train).unwrap();
        head.forward(&states.hidden_state.select(1, 0))
    })
}

/// Its two layers are one, used twice.
fn albert(p: &Path) -> Logits {
    let config: AlbertConfig = config(with(
        bert_keys(),
        json!({
            "classifier_dropout_prob": 0.0, "bos_token_id": 0, "eos_token_id": 2,
            "embedding_size": 8, "inner_group_num": 1, "num_hidden_groups": 1,
        }),
    ));
    let model = AlbertForSequenceClassification::new(p, &config).unwrap();
    Box::new(move |ids, train| model.forward_t(Some(ids), None, None, None, None, train).logits)
}

fn deberta_keys() -> Value {
    with(
        bert_keys(),
        json!({
            "relative_attention": true, "pos_att_type": "c2p|p2c", "max_relative_positions": 12,
            "position_biased_input": false, "pooler_hidden_size": 16, "pooler_dropout": 0.0,
            "pooler_hidden_act": "gelu", "layer_norm_eps": 1e-7, "pad_token_id": 0,
            "type_vocab_size": 0, "classifier_dropout": 0.0,
        }),
    )
}

fn deberta(p: &Path) -> Logits {
    let config: DebertaConfig = config(deberta_keys());
    let model = DebertaForSequenceClassification::new(p, &config).unwrap();
    Box::new(move |ids, train| {
        model.forward_t(Some(ids), None, None, None, None, train).unwrap().logits
    })
}

fn deberta_v2(p: &Path) -> Logits {
    let keys =
        json!({ "share_att_key": true, "position_buckets": 8, "norm_rel_ebd": "layer_norm" });
    let config: DebertaV2Config = config(with(deberta_keys(), keys));
    let model = DebertaV2ForSequenceClassification::new(p, &config).unwrap();
    Box::new(move |ids, train| {
        model.forward_t(Some(ids), None, None, None, None, train).unwrap().logits
    })
}

fn bart(p: &Path) -> Logits {
    let config: BartConfig = config(json!({
        "activation_function": "gelu", "activation_dropout": 0.0, "attention_dropout": 0.0,
        "classif_dropout": 0.0, "d_model": 16, "decoder_attention_heads": 2, "decoder_ffn_dim": 24,
        "decoder_layerdrop": 0.0, "decoder_layers": 1, "decoder_start_token_id": 2, "dropout": 0.0,
        "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "encoder_layerdrop": 0.0,
        "encoder_layers": 1, "bos_token_id": 0, "eos_token_id": EOS, "pad_token_id": 1,
        "init_std": 0.02, "max_position_embeddings": 24, "num_hidden_layers": 1,
        "vocab_size": 30, "num_labels": 2, "id2label": { "0": "a", "1": "b" },
    }));
    let model = BartForSequenceClassification::new(p, &config).unwrap();
    Box::new(move |ids, train| model.forward_t(ids, None, None, None, None, train).decoder_output)
}

fn gpt_neo(p: &Path) -> Logits {
    let config: GptNeoConfig = config(json!({
        "activation_function": "gelu_new", "attention_dropout": 0.0,
        "attention_layers": ["global", "local"], "attention_types": [[["global", "local"], 1]],
        "intermediate_size": 24, "bos_token_id": 0, "eos_token_id": 0, "vocab_size": 30,
        "num_layers": 2, "num_heads": 2, "hidden_size": 16, "window_size": 4, "embed_dropout": 0.0,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-5, "max_position_embeddings": 24,
        "resid_dropout": 0.0,
    }));
    let model = GptNeoForCausalLM::new(p, &config).unwrap();
    Box::new(move |ids, train| {
        let logits = model.forward_t(Some(ids), None, None, None, None, None, train);
        logits.unwrap().lm_logits.select(1, -1)
    })
}

fn gpt_keys() -> Value {
    json!({
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5, "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 24,
        "n_ctx": 24, "rotary_dim": 4, "vocab_size": 30, "afn": "gelu_new",
    })
}

fn gpt_j(p: &Path) -> Logits {
    let config: GptJConfig = config(gpt_keys());
    let model = GptJLMHeadModel::new(p, &config);
    Box::new(move |ids, train| {
        let ids = Some(ids);
        let logits = model.forward_t(ids, Cache::None, None, None, None, None, None, None, train);
        logits.unwrap().lm_logits.select(1, -1)
    })
}

/// The one whose layers have no slots.
pub fn gpt2(p: &Path) -> Logits {
    let config: Gpt2Config = config(gpt_keys());
    let model = GPT2LMHeadModel::new(p, &config);
    Box::new(move |ids, train| {
        let logits = model.forward_t(Some(ids), None, None, None, None, None, train);
        logits.unwrap().lm_logits.select(1, -1)
    })
}

fn t5(p: &Path) -> Logits {
    let config: T5Config = config(json!({
        "dropout_rate": 0.0, "d_model": 16, "d_ff": 24, "d_kv": 8, "decoder_start_token_id": 0,
        "eos_token_id": 1, "initializer_factor": 1.0, "layer_norm_epsilon": 1e-6, "num_heads": 2,
        "num_layers": 1, "pad_token_id": 0, "relative_attention_num_buckets": 8,
        "vocab_size": 30,
    }));
    let model = T5ForConditionalGeneration::new(p, &config);
    Box::new(move |ids, train| {
        let written = Tensor::zeros([ids.size()[0], 3], (Kind::Int64, ids.device()));
        let logits = model
            .forward_t(Some(ids), None, None, Some(&written), None, None, None, None, train)
            .decoder_output;
        logits.select(1, -1)
    })
}
