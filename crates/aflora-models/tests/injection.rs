//! rust-bert's models, whose layers are private, take adapters by the slots of
//! aflora-core's linear layers, which the facade gives them.

mod common;

use aflora_core::nn::{capture, VarStore};
use common::{batch, fixture, relative, tensors};
use rust_bert::bert::{BertConfig, BertForSequenceClassification};
use serde_json::{json, Value};
use tch::{Device, Kind, Tensor};

#[test]
fn what_is_put_into_the_layers_of_rust_berts_bert_counts_as_in_the_weights() {
    let text = std::fs::read(fixture("bert_classes/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["id2label"] = json!({ "0": "a", "1": "b" });
    let config: BertConfig = serde_json::from_value(config).unwrap();
    let mut vs = VarStore::new(Device::Cpu);
    let (model, layers) =
        capture(|| BertForSequenceClassification::new(vs.root(), &config).unwrap());
    vs.load(fixture("bert_classes/model.safetensors")).unwrap();
    vs.freeze();
    let io = tensors("bert_classes/io.safetensors");
    let logits = || {
        let given = batch(&io, 0);
        let (ids, mask) = (Some(&given.input_ids), Some(&given.attention_mask));
        model.forward_t(ids, mask, given.token_type_ids.as_ref(), None, None, false).logits
    };
    let plain = logits();
    assert!(relative(&plain, &io["batch0.logits"]) < 1e-5);

    // Two blocks of six layers, the pooler and the classifier.
    assert_eq!(layers.len(), 14);
    let path = |ws: &Tensor| -> [Tensor; 2] {
        let (out, features) = ws.size2().unwrap();
        let random = |shape, name| aflora_core::adapter::normal(shape, 0.1, 1, name);
        [random(&[2, features], "down"), random(&[out, 2], "up")]
    };
    for layer in &layers {
        let [down, up] = path(&layer.ws);
        layer.set(Box::new(move |x, weight, bias| {
            let low = x.linear(&down, None::<Tensor>).linear(&up, None::<Tensor>);
            x.linear(weight, bias) + low
        }));
    }
    let adapted = logits();
    assert!(relative(&adapted, &plain) > 0.01);
    for layer in &layers {
        layer.clear();
        let [down, up] = path(&layer.ws);
        let _ = layer.ws.shallow_clone().g_add_(&up.matmul(&down));
    }
    assert_eq!(adapted.kind(), Kind::Float);
    assert!(relative(&logits(), &adapted) < 1e-5);
}
