//! Several adapters on one base model.

use crate::common::{cpu, fixture, relative};
use crate::{folders, limit, logits, model, MODELS};
use aflora_models::adapter_folder::AdapterFolder;
use aflora_models::{build, kind_of, shapes_only, weights, AdaptedModel, Backbone, Head};
use tch::Kind;

#[test]
fn adapters_stand_beside_one_another_on_one_base_and_leave_it_as_it_is() {
    for name in MODELS {
        let (base, path, given) = model(name);
        let config = path.join("config.json");
        let (kind, head) = (kind_of(&config).unwrap().kind, base.about().head);
        let of_base = |base: &dyn Backbone| tch::no_grad(|| base.forward(&given, false)).unwrap();
        let before = of_base(base.as_ref()).logits;
        let own: Vec<_> = folders().into_iter().filter(|(of, ..)| *of == name).collect();
        let beside = |folder: &str| {
            let backbone = shapes_only(|| build(kind, &config, head, &cpu()).unwrap());
            weights::load_beside(backbone.as_ref(), &path, base.as_ref()).unwrap();
            let open = AdapterFolder::open(&fixture("peft_keys").join(name).join(folder)).unwrap();
            open.attach(backbone, Kind::Float).unwrap()
        };
        let all: Vec<AdaptedModel> = own.iter().map(|(_, folder, _)| beside(folder)).collect();
        for ((_, folder, expected), adapted) in own.iter().zip(&all) {
            let error = relative(&logits(name, folder, adapted), expected);
            assert!(error < limit(folder), "{name}/{folder}: {error:e}");
        }
        assert_eq!(of_base(base.as_ref()).logits, before, "{name}");
    }
}

#[test]
fn merging_one_of_several_models_on_a_base_leaves_the_others_as_they_are() {
    let (base, path, given) = model("bert");
    let config = path.join("config.json");
    let backbone = shapes_only(|| build("bert", &config, Head::Classes(2), &cpu()).unwrap());
    weights::load_beside(backbone.as_ref(), &path, base.as_ref()).unwrap();
    let open = AdapterFolder::open(&fixture("peft_keys/bert/patterns")).unwrap();
    let layers = backbone.linears().to_vec();
    let injection = open.inject(backbone.var_store(), &layers).unwrap();
    let of = |model: &dyn Backbone| tch::no_grad(|| model.forward(&given, false)).unwrap().logits;
    let (before, adapted) = (of(base.as_ref()), of(backbone.as_ref()));
    injection.merge().unwrap();
    assert!(relative(&of(backbone.as_ref()), &adapted) < 1e-5);
    assert!(relative(&adapted, &before) > 1e-3);
    assert_eq!(of(base.as_ref()), before);
}
