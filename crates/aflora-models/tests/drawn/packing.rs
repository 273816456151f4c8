//! Several documents in a row: each is read as if it stood alone.

use crate::alone;
use crate::common::tiny::Tiny;
use crate::common::{cpu, relative};
use aflora_models::{Batch, Documents};
use tch::{Device, Kind, Tensor};

#[test]
fn documents_in_one_row_have_the_logits_that_each_has_alone() {
    let _alone = alone();
    let mut compared = 0;
    for tiny in Tiny::writers() {
        let model = tiny.load(&cpu());
        tch::manual_seed(2);
        let lengths = [5i64, 1, 9];
        let documents: Vec<Tensor> = lengths
            .iter()
            .map(|&n| Tensor::randint_low(5, 80, [1, n], (Kind::Int64, Device::Cpu)))
            .collect();
        let ids = Tensor::cat(&documents, 1);
        let numbers: Vec<i64> =
            lengths.iter().zip(0..).flat_map(|(&n, number)| vec![number; n as usize]).collect();
        let numbers = Tensor::from_slice(&numbers).unsqueeze(0);
        let plain = Batch::new(ids.shallow_clone(), ids.ones_like());
        let packed = Batch { documents: Some(Documents::new(numbers)), ..plain };
        let _no_grad = tch::no_grad_guard();
        if matches!(tiny.kind, "bart" | "t5") {
            let packed = Batch { decoder_input_ids: Some(ids.shallow_clone()), ..packed };
            let error = model.forward(&packed, false).unwrap_err().to_string();
            assert!(error.contains("several documents"), "{error}");
            continue;
        }
        let found = model.forward(&packed, false).unwrap().logits;
        let alone = documents.iter().map(|ids| {
            let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
            model.forward(&batch, false).unwrap().logits
        });
        let alone = Tensor::cat(&alone.collect::<Vec<_>>(), 1);
        let error = relative(&found, &alone);
        assert!(error < 1e-5, "{}: {error:e}", tiny.folder);
        let one = Batch::new(ids.shallow_clone(), ids.ones_like());
        let whole = model.forward(&one, false).unwrap().logits;
        assert!(relative(&whole, &alone) > 1e-3, "{}", tiny.folder);
        compared += 1;
    }
    assert!(compared >= 4, "{compared}");
}
