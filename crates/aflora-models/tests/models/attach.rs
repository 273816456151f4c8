//! What a method sees of the layers that it puts adapters on.

use crate::common::{cpu, fixture, writers};
use aflora_core::adapter::{Layer, MethodConfig, TensorSpec};
use aflora_core::weight::FrozenWeight;
use aflora_core::{Adapter, Method, Site};
use aflora_models::{shapes_only, AdaptedModel, Backbone, Head, Pattern, Targets};
use std::sync::Mutex;
use tch::{Device, Kind, Tensor};

/// LoRA, and a memory of the layers that it was put on.
#[derive(Debug)]
struct Watched {
    lora: Box<dyn Method>,
    seen: Mutex<Vec<Layer>>,
}

impl Method for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn attach(
        &self,
        layers: &[Layer],
        seed: u64,
        device: Device,
    ) -> aflora_core::Result<Vec<Box<dyn Adapter>>> {
        self.seen.lock().unwrap().extend(layers.iter().map(|layer| Layer {
            site: layer.site.clone(),
            weight: layer.weight.as_ref().map(FrozenWeight::shallow_clone),
            bias: layer.bias.as_ref().map(Tensor::shallow_clone),
        }));
        self.lora.attach(layers, seed, device)
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        self.lora.tensors()
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.lora.trainable_count(site)
    }
}

/// The layers of `backbone` as a method sees them.
fn seen(backbone: Box<dyn Backbone>) -> Vec<Layer> {
    let lora = MethodConfig::defaults("lora").unwrap().build().unwrap();
    let method = Watched { lora, seen: Mutex::default() };
    let targets = Targets { target_modules: Pattern::Regex(".*".into()), ..Default::default() };
    AdaptedModel::new(backbone, &method, &targets, &[], Kind::Float, 1).unwrap();
    method.seen.into_inner().unwrap()
}

#[test]
fn a_method_sees_weights_and_biases_however_they_are_stored() {
    let (backbone, _) = writers::load("gpt2", &cpu());
    let stored = backbone.var_store().variables();
    let layers = seen(backbone);
    assert!(layers.len() > 4);
    for Layer { site, weight, bias } in layers {
        let (weight, bias) = (weight.unwrap().numbers(), bias.unwrap());
        assert_eq!(weight.size(), [site.out_features, site.in_features], "{}", site.name);
        // GPT-2's lie transposed.
        assert_eq!(weight.tr(), stored[&format!("{}.weight", site.name)], "{}", site.name);
        assert_eq!(bias, stored[&format!("{}.bias", site.name)], "{}", site.name);
        assert_eq!(site.name, format!("transformer.h.{}.{}", site.layer.unwrap(), site.module));
    }
}

#[test]
fn every_linear_layer_of_alberts_block_takes_an_adapter() {
    let config = fixture("models/albert/config.json");
    let albert = aflora_models::build("albert", &config, Head::Scores(1), &cpu()).unwrap();
    let modules: Vec<String> = seen(albert).iter().map(|layer| layer.site.name.clone()).collect();
    let block = "albert.encoder.albert_layer_groups.0.albert_layers.0";
    let layers = ["attention.query", "attention.key", "attention.value", "attention.dense"];
    let layers = layers.iter().chain(&["ffn", "ffn_output"]);
    assert_eq!(modules, layers.map(|layer| format!("{block}.{layer}")).collect::<Vec<_>>());
}

#[test]
fn of_a_model_of_shapes_a_method_sees_no_values() {
    let config = fixture("writers/gpt2/config.json");
    let build = || aflora_models::build("gpt2", &config, Head::Language, &cpu()).unwrap();
    let layers = seen(shapes_only(build));
    assert!(layers.len() > 4);
    assert!(layers.iter().all(|layer| layer.weight.is_none() && layer.bias.is_none()));
}
