//! Adapters of every method, away from their start.

use aflora_core::adapter::{
    normal, AdaLoraConfig, AfloraConfig, AfloraRankConfig, BitFitConfig, DoraConfig, EloraConfig,
    FullConfig, HeadConfig, Init, LoraConfig, MethodConfig, SoraConfig,
};
use aflora_core::freeze::FreezeConfig;
use aflora_models::adapter_folder::{Description, TaskType};
use aflora_models::{AdaptedModel, Backbone, Pattern, Targets};
use tch::Kind;

/// Every method, with settings that are not the defaults.
pub fn methods() -> Vec<MethodConfig> {
    vec![
        MethodConfig::Aflora(AfloraConfig::default()),
        MethodConfig::Aflora(AfloraConfig { alpha: Some(16.0), ..Default::default() }),
        MethodConfig::Lora(LoraConfig { rank: 3, alpha: 5.0, ..Default::default() }),
        MethodConfig::Lora(LoraConfig { rslora: true, ..Default::default() }),
        MethodConfig::Lora(LoraConfig { train_a: false, ..Default::default() }),
        MethodConfig::Lora(LoraConfig { init: Init::Pissa, ..Default::default() }),
        MethodConfig::Lora(LoraConfig { init: Init::Olora, rslora: true, ..Default::default() }),
        MethodConfig::Lora(LoraConfig { freeze: FreezeConfig::default(), ..Default::default() }),
        MethodConfig::Dora(DoraConfig(LoraConfig { rank: 3, alpha: 5.0, ..Default::default() })),
        MethodConfig::Elora(EloraConfig { rank: 16, projection_seed: 3, ..Default::default() }),
        MethodConfig::Elora(EloraConfig { rank: 5, shared: false, ..Default::default() }),
        MethodConfig::AdaLora(AdaLoraConfig { rank: 4, target_rank: 2, ..Default::default() }),
        MethodConfig::Sora(SoraConfig::default()),
        MethodConfig::AfloraRank(AfloraRankConfig::default()),
        MethodConfig::BitFit(BitFitConfig {}),
        MethodConfig::Full(FullConfig {}),
        MethodConfig::Head(HeadConfig {}),
    ]
}

/// `backbone` with adapters whose values are not those of the start, some components zero.
pub fn trained(
    config: &MethodConfig,
    backbone: Box<dyn Backbone>,
    target_modules: Pattern,
) -> AdaptedModel {
    let targets = Targets { target_modules, ..Default::default() };
    let method = config.build().unwrap();
    let model =
        AdaptedModel::new(backbone, method.as_ref(), &targets, &[], Kind::Float, 1).unwrap();
    tch::no_grad(|| {
        for (i, adapter) in model.adapters().enumerate() {
            for mut t in adapter.tensors().into_iter().filter(|t| t.trainable) {
                let noise = normal(&t.tensor.size(), 0.2, i as u64, t.spec.name);
                let _ = t.tensor.g_add_(&noise);
                if ["lora_E", "gate"].contains(&t.spec.name)
                    || (t.spec.name == "aflora_d" && method.name() == "aflora_rank")
                {
                    // Of the first layer none is left, of the others the first one goes.
                    let gone = if i == 0 { t.tensor.numel() as i64 } else { 1 };
                    let _ = t.tensor.view([-1]).narrow(0, 0, gone).fill_(0.0);
                }
            }
        }
        for (name, mut weight) in model.trained_weights() {
            let _ = weight.g_add_(&normal(&weight.size(), 0.02, 7, &name));
        }
    });
    model
}

/// What is written beside the adapters of `model`.
pub fn describe(method: &MethodConfig, model: &AdaptedModel) -> Description {
    Description {
        method: method.clone(),
        base_model: Some("tiny".into()),
        length: None,
        modules_to_save: model.saved_modules(),
        task_type: Some(TaskType::of(model.backbone())),
    }
}
